"""Builds what is shipped in `provisioned/`. Needs the development dependencies."""

from __future__ import annotations

import json
from pathlib import Path

from dashboards.finishing import as_text, finished
from dashboards.lint import problems_of, problems_of_rules
from dashboards.overview import overview
from dashboards.provisioned_files import PROVISIONED, RULES
from dashboards.rules import as_yaml


def built() -> dict[str, str]:
    """File name -> content, of everything in `provisioned/`."""
    dashboards = [finished(make()) for make in (overview,)]
    return {f"{d['uid']}.json": as_text(d) for d in dashboards} | {RULES: as_yaml()}


def write(folder: Path = PROVISIONED) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in built().items():
        (folder / name).write_text(text)
    for stale in _strays(folder):
        stale.unlink()
    return sorted(folder.iterdir())


def problems(folder: Path = PROVISIONED) -> list[str]:
    """What is wrong with the committed files, in words."""
    found = []
    for name, text in built().items():
        file = folder / name
        if not file.exists() or file.read_text() != text:
            found.append(f"{name} is not what the code builds: run `python -m dashboards build`")
    found += [f"{stray.name} is built by nothing" for stray in _strays(folder)]
    uids: set[str] = set()
    for file in sorted(folder.glob("*.json")):
        dashboard = json.loads(file.read_text())
        found += problems_of(dashboard)
        if dashboard["uid"] in uids:
            found.append(f"{file.name}: another dashboard has the uid {dashboard['uid']}")
        uids.add(dashboard["uid"])
    return found + problems_of_rules()


def _strays(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.name not in built()]
