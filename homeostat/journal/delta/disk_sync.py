"""Commits forced to the disk. delta-rs leaves them to the kernel, and a power loss may undo them
after what could repair them is gone: a spool, a replaced file, an older checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

LOG, LAST_CHECKPOINT = "_delta_log", "_last_checkpoint"


def sync_folder(folder: Path) -> None:
    """A new file is only there after a power loss when its folder has been synced."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """A folder, with its parents, that is still there after a power loss."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_commits(table: Path, first: int, last: int) -> None:
    """The entries of the log, the files they name, and the checkpoint after them. What is gone
    meanwhile was replaced by others, which see to themselves."""
    log = table / LOG
    parents = {log, table}
    for version in range(first, last + 1):
        entry = log / f"{version:020d}.json"
        for path in _added(entry):
            file = table / path
            parents.update(table / each for each in Path(path).parents)
            _sync_file(file)
        _sync_file(entry)
    summed_up = checkpoint(table)
    if summed_up is not None and summed_up >= first:
        sync_checkpoint(table)
    for parent in parents:
        with suppress(FileNotFoundError):
            sync_folder(parent)


def sync_back_to(table: Path, app_id: str, number: int) -> None:
    """All commits since the one that brought this number of a writer."""
    entries = [path.stem for path in (table / LOG).glob("*.json") if path.stem.isdigit()]
    newest, first = max(map(int, entries), default=-1), 0
    for version in range(newest, -1, -1):
        mine = [
            line["txn"]["version"]
            for line in _lines(table / LOG / f"{version:020d}.json")
            if line.get("txn", {}).get("appId") == app_id
        ]
        if mine and min(mine) < number:
            first = version
            break
    sync_commits(table, first, newest)


def checkpoint(table: Path) -> int | None:
    """The version that the newest checkpoint sums up."""
    try:
        version: int = json.loads((table / LOG / LAST_CHECKPOINT).read_bytes())["version"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return version


def sync_checkpoint(table: Path) -> None:
    """The newest checkpoint, and what points at it: entries below it may go then."""
    log, version = table / LOG, checkpoint(table)
    if version is not None:
        for file in log.glob(f"{version:020d}.checkpoint*"):
            _sync_file(file)
    _sync_file(log / LAST_CHECKPOINT)
    sync_folder(log)


def _added(entry: Path) -> Iterator[str]:
    for line in _lines(entry):
        if "add" in line:
            yield unquote(line["add"]["path"])


def _lines(entry: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in entry.read_text().splitlines()]
    except FileNotFoundError:
        return []


def _sync_file(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
