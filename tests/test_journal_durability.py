"""What each durability promises holds when the process is killed, and is not more than it says."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from journal_kit import label, open_writer, stored, tensor_rows

from homeostat.journal.delta import table_log, tables
from homeostat.journal.keeping import deletion
from homeostat.records import Task

HERE = str(Path(__file__).parent)
MOST_TRIES = 10

# Acknowledges each row with the moment (CLOCK_MONOTONIC is one clock for all processes), and says
# up to which row none is in memory any more.
APPENDER = """
import os, sys, time
from datetime import timedelta
from pathlib import Path
from journal_kit import label, open_writer, tensor_rows
folder, durability, turn = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
writer = open_writer(
    folder, durability=durability, commit_every=timedelta(seconds=0.2), commit_bytes=200_000
)
for count in range(1_000_000):
    name = f"{turn}-{count}"
    writer.append(tensor_rows([name]))
    os.write(1, f"row {name} {time.monotonic()}\\n".encode())
    if not writer.level().memory_bytes:
        os.write(1, f"spooled {name} {time.monotonic()}\\n".encode())
    if count % 50 == 0:
        writer.label([label(name, "7")])
        os.write(1, f"label {name} {time.monotonic()}\\n".encode())
    time.sleep(0.0005)
"""

# One row, and then nothing that could push it on: only the promise itself. With "async", it waits
# until the row has left its memory, and says after how many seconds that was.
LONELY = """
import os, signal, sys, time
from pathlib import Path
from journal_kit import open_writer, tensor_rows, until
folder, durability = Path(sys.argv[1]), sys.argv[2]
writer = open_writer(folder, durability=durability)
writer.append(tensor_rows(["first"]))
writer.flush()
begun = time.monotonic()
writer.append(tensor_rows(["last"]))
if durability == "async":
    until(lambda: not writer.level().memory_bytes)
    os.write(1, f"{time.monotonic() - begun}".encode())
os.kill(os.getpid(), signal.SIGKILL)
"""


def child(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": HERE},
    )


def killed(process: subprocess.Popen[bytes], after: float) -> tuple[bytes, float]:
    """What it acknowledged until it was killed, so many seconds after its first label and its first
    row in the spool; and when that was."""
    assert process.stdout is not None
    out = process.stdout.fileno()
    printed, begun, deadline = b"", False, time.monotonic() + 60
    while (left := deadline - time.monotonic()) > 0:
        if select.select([out], [], [], left)[0]:
            printed += os.read(out, 1 << 20)
            if not begun and b"label" in printed and b"spooled" in printed:
                begun, deadline = True, time.monotonic() + after
    assert begun, "no row left its memory"
    moment = time.monotonic()
    process.send_signal(signal.SIGKILL)
    printed += process.stdout.read()
    process.wait()
    process.stdout.close()
    return printed, moment


def acknowledged(printed: bytes, kind: str) -> dict[str, float]:
    whole = printed.decode().rpartition("\n")[0].splitlines()
    fields = [line.split() for line in whole if line.startswith(kind)]
    return {name: float(moment) for _, name, moment in fields}


def killed_twice(folder: Path, durability: str, name: str) -> bool:
    """No row or label is lost that was to be kept; whether that holds for each row that was older
    than half a second, too."""
    kept: set[str] = set()
    old: set[str] = set()
    labels: set[str] = set()
    for turn, after in enumerate([0.4, 0.7]):
        printed, moment = killed(child(APPENDER, folder, durability, f"{name}-{turn}"), after)
        rows = acknowledged(printed, "row")
        spooled = max(acknowledged(printed, "spooled").values(), default=0.0)
        kept |= {row for row, at in rows.items() if at <= spooled or durability != "async"}
        old |= {row for row, at in rows.items() if at < moment - 0.5}
        labels |= acknowledged(printed, "label").keys()
    open_writer(folder).close()
    found, found_labels = stored(folder), stored(folder, "labels")
    assert kept <= found.keys()
    assert labels <= found_labels.keys()
    assert set(found.values()) == set(found_labels.values()) == {1}
    return bool(kept and old) and old <= found.keys()


@pytest.mark.parametrize("durability", ["async", "spool", "sync"])
def test_kill_costs_what_the_durability_says(tmp_path: Path, durability: str) -> None:
    """spool and sync: nothing. async: rows of the last moments, 50 ms on an idle machine; half a
    second is allowed here, and some more tries, since other processes may hold this one up. Never
    what had left its memory. Labels: nothing, ever."""
    assert any(killed_twice(tmp_path, durability, str(number)) for number in range(MOST_TRIES))


def test_async_row_is_safe_soon_without_another_one(tmp_path: Path) -> None:
    """A row that nothing follows gets into the spool by itself, within a second where no other
    process holds this one up."""
    for number in range(MOST_TRIES):
        lonely = child(LONELY, tmp_path / str(number), "async")
        printed, _ = lonely.communicate(timeout=120)
        assert lonely.returncode == -signal.SIGKILL
        open_writer(tmp_path / str(number)).close()
        assert stored(tmp_path / str(number)) == {"first": 1, "last": 1}
        if float(printed) < 1:
            return
    raise AssertionError("it stayed in memory for longer each time")


@pytest.mark.parametrize("durability", ["spool", "sync"])
def test_row_is_safe_when_append_returns(tmp_path: Path, durability: str) -> None:
    """Killed by its own hand the moment after, nothing is missing."""
    assert child(LONELY, tmp_path, durability).wait(120) == -signal.SIGKILL
    open_writer(tmp_path).close()
    assert stored(tmp_path) == {"first": 1, "last": 1}


def test_sync_asks_the_disk_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sync append and each label forces its file to the disk, and a new file's folder; the
    other durabilities force none for a row."""
    forced: list[Path] = []

    def recording(handle: int) -> None:
        forced.append(Path(f"/proc/self/fd/{handle}").readlink())
        real(handle)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", recording)
    for durability in ("async", "spool", "sync"):
        spool = tmp_path / durability / "spool/digits/server-1"
        writer = open_writer(tmp_path / durability, durability=durability)
        for number in range(2):
            forced.clear()
            writer.append(tensor_rows(["a"]))
            here = [file for file in forced if file.is_relative_to(spool)]
            if durability == "sync":
                assert spool in here or number
                assert ".arrows" in {file.suffix for file in here}
            else:
                assert here == []
        forced.clear()
        writer.label([label("a", "7")])
        assert spool in forced
        assert ".arrows" in {file.suffix for file in forced if file.is_relative_to(spool)}
        writer.close()


def forced_files(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is forced to the disk from now on."""
    forced: list[Path] = []

    def recording(handle: int) -> None:
        forced.append(Path(f"/proc/self/fd/{handle}").readlink())
        real(handle)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", recording)
    return forced


def test_new_tables_and_folders_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry that makes a table, and each new folder's parent, also of a new day."""
    forced = forced_files(monkeypatch)
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a"]))
    writer.flush()
    writer.close()
    table = tmp_path / "journal/digits/predictions"
    entries = {table / "_delta_log" / f"{version:020d}.json" for version in (0, 1)}
    made = {tmp_path / "journal", table, table / "model=digits", tmp_path / "spool/digits"}
    assert entries | made | set(table.rglob("*.parquet")) <= set(forced)


def test_deletion_is_on_the_disk_before_what_it_replaced_may_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted rows, whole days, settings, and the checkpoint before older entries go."""
    forced = forced_files(monkeypatch)
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a", "b"]))
    writer.close()
    table = tables.predictions(str(tmp_path / "journal"), "digits", Task.CLASSIFICATION)
    log = tmp_path / "journal/digits/predictions/_delta_log"
    steps = (
        lambda: table_log.settle(table, keep_deleted=timedelta(hours=1)),
        lambda: deletion.delete(table, "prediction_id = 'a'"),
        lambda: deletion.drop_days(table, "2026-11-01"),
        lambda: table_log.tidy_log(table),
        lambda: deletion.drop_days(table, "2027-01-01"),
        lambda: table_log.scrub(table),
    )
    for step in steps:
        step()
        handle = DeltaTable(table.url)
        assert {Path(file) for file in handle.file_uris()} <= set(forced)
        named = {file for file in log.iterdir() if ".checkpoint" in file.name}
        version = handle.version()
        entries = {log / f"{number:020d}.json" for number in range(2, version + 1)}
        assert {file for file in entries | named if file.exists()} <= set(forced)
    assert handle.version() > 2
    assert log / "_last_checkpoint" in forced


def test_the_log_is_summed_up_often(tmp_path: Path) -> None:
    """Whoever opens the table reads one checkpoint and few entries, however many commits there
    were; and a checkpoint names all that were before it."""
    writer = open_writer(tmp_path)
    for number in range(60):
        writer.append(tensor_rows([f"row-{number}"]))
        writer.flush()
    writer.close()
    log = tmp_path / "journal/digits/predictions/_delta_log"
    summed_up = [int(file.name[:20]) for file in log.glob("*.checkpoint.parquet")]
    assert DeltaTable(log.parent).version() - max(summed_up) < 30
    assert stored(tmp_path) == {f"row-{number}": 1 for number in range(60)}


@pytest.mark.parametrize("left_over", [False, True])
def test_a_commit_is_on_the_disk_before_its_rows_leave_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_over: bool
) -> None:
    """Data files, the log's entries and their folders; also of a commit that a process made which
    was killed before it deleted its file: nobody knows what it had forced."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a"]))
    writer.label([label("a", "7")])
    copies = tmp_path / "copies"
    if left_over:
        shutil.copytree(tmp_path / "spool/digits/server-1", copies)
        writer.close()
        for file in copies.glob("*.arrows"):
            shutil.copy2(file, tmp_path / "spool/digits/server-1")
    forced = forced_files(monkeypatch)
    lacking: dict[str, set[Path]] = {}

    def deleting(path: Path) -> None:
        if str(path).endswith(".arrows"):
            kind = Path(path).stem.partition("-")[2]
            lacking[kind] = committed_files(tmp_path / "journal/digits" / kind) - set(forced)
        real(path)

    real = os.unlink
    monkeypatch.setattr(os, "unlink", deleting)
    if left_over:
        writer = open_writer(tmp_path)
    writer.close()
    assert lacking == {"predictions": set(), "labels": set()}
    assert stored(tmp_path) == {"a": 1}


def committed_files(table: Path) -> set[Path]:
    """What the table consists of now, with the folders these files are in."""
    handle = DeltaTable(table)
    data = {Path(file) for file in handle.file_uris()}
    entry = table / "_delta_log" / f"{handle.version():020d}.json"
    return data | {file.parent for file in data} | {entry, entry.parent}


class Range(ctypes.Structure):
    _fields_ = (("off", ctypes.c_uint64), ("len", ctypes.c_uint64))


class Pages(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")
    )


def waiting_for_the_disk(file: Path) -> int:
    """Pages of a file that are not on the disk yet, by the kernel's own count (cachestat)."""
    whole, pages = Range(0, 0), Pages()
    with file.open() as opened:
        failed = ctypes.CDLL(None, use_errno=True).syscall(
            451, opened.fileno(), ctypes.byref(whole), ctypes.byref(pages), 0
        )
    if failed:
        pytest.skip(f"this kernel has no cachestat: {os.strerror(ctypes.get_errno())}")
    return int(pages.dirty + pages.writeback)


def test_sync_row_is_on_the_disk_when_append_returns(tmp_path: Path) -> None:
    """The kernel has nothing left to write of the file; with spool it still has, unless it wrote
    it in that very moment."""
    left: dict[str, list[int]] = {"spool": [], "sync": []}
    for durability, found in left.items():
        writer = open_writer(tmp_path / durability, durability=durability)
        writer.flush()
        spool = tmp_path / durability / "spool/digits/server-1"
        for turn in range(5):
            writer.append(tensor_rows([f"row-{turn}-{number}" for number in range(2_000)]))
            found.append(waiting_for_the_disk(next(spool.glob("*.arrows"))))
        writer.close()
    if not any(left["spool"]):
        pytest.skip("this file system keeps no page waiting")
    assert not any(left["sync"])
