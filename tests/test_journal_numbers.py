"""Rows are known by a number: where numbers come twice, or go back, none is lost or doubled."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from journal_kit import NOON, SteppingClock, label, open_writer, stored, tensor_rows

HERE = str(Path(__file__).parent)

# Dies by its own hand at the so-manieth time that it renames, or deletes, a file of rows.
DYING = """
import os, signal, sys
from pathlib import Path
from journal_kit import open_writer
folder, event, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def hook(name, arguments):
    global left
    if name == event and str(arguments[0]).endswith(".arrows"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
open_writer(folder, commit_bytes=1).close()
"""


def test_same_writer_id_on_two_machines_loses_no_rows(tmp_path: Path) -> None:
    """Two spools (no lock can see both) under one id: rows are renumbered, not skipped."""
    first = open_writer(tmp_path)
    second = open_writer(tmp_path, spool=tmp_path / "elsewhere")
    for turn in range(3):
        first.append(tensor_rows([f"first-{turn}"]))
        second.append(tensor_rows([f"second-{turn}"]))
        second.flush()
        first.flush()
    first.close()
    second.close()
    assert stored(tmp_path) == {f"{who}-{n}": 1 for who in ("first", "second") for n in range(3)}


def test_lost_spool_and_a_clock_that_went_back_lose_no_row(tmp_path: Path) -> None:
    """Numbers of a new folder may be below those the tables have seen: rows that were never
    committed are not taken for ones that were."""
    writer = open_writer(tmp_path, clock=SteppingClock(NOON + timedelta(days=1)))
    writer.append(tensor_rows(["a"]))
    writer.label([label("a", "7")])
    writer.close()
    shutil.rmtree(tmp_path / "spool")
    (tmp_path / "journal").rename(tmp_path / "elsewhere")
    (tmp_path / "journal").write_text("not a folder")
    early = open_writer(tmp_path, flush_within=timedelta(seconds=0.1))
    early.append(tensor_rows(["b"]))
    early.label([label("b", "7")])
    early.close()
    (tmp_path / "journal").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "journal")
    again = open_writer(tmp_path)
    again.append(tensor_rows(["c"]))
    again.close()
    assert stored(tmp_path) == {"a": 1, "b": 1, "c": 1}
    assert stored(tmp_path, "labels") == {"a": 1, "b": 1}


def test_clock_that_went_back_over_a_restart_loses_no_row(tmp_path: Path) -> None:
    """Rows that a process took while the storage was away, under a clock behind the one before, are
    not taken for rows that were committed."""
    writer = open_writer(tmp_path, clock=SteppingClock(NOON + timedelta(days=1)))
    writer.append(tensor_rows(["a"]))
    writer.label([label("a", "7")])
    writer.close()
    (tmp_path / "journal").rename(tmp_path / "elsewhere")
    (tmp_path / "journal").write_text("not a folder")
    early = open_writer(tmp_path, flush_within=timedelta(seconds=0.1))
    early.append(tensor_rows(["b"]))
    early.label([label("b", "7")])
    early.close()
    (tmp_path / "journal").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "journal")
    open_writer(tmp_path).close()
    assert stored(tmp_path) == {"a": 1, "b": 1}
    assert stored(tmp_path, "labels") == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("event", "times", "committed"),
    [
        ("os.rename", 1, (0, 0)),  # while they are numbered anew
        ("os.rename", 2, (0, 0)),
        ("os.remove", 1, (1, 0)),  # after a commit, before its file is deleted
        ("os.remove", 2, (2, 0)),
        ("os.remove", 4, (3, 1)),
        ("os.remove", 5, (3, 2)),
    ],
)
def test_lost_spool_and_a_kill_between_two_commits_lose_no_row(
    tmp_path: Path, event: str, times: int, committed: tuple[int, int]
) -> None:
    """Rows that are numbered anew, some of them committed and some not when the process dies: the
    next one tells them apart."""
    numbered_below_the_table(tmp_path)
    dying = [sys.executable, "-c", DYING, str(tmp_path), event, str(times)]
    done = subprocess.run(dying, env={**os.environ, "PYTHONPATH": HERE}, timeout=60)
    assert done.returncode == -signal.SIGKILL
    found = (len(stored(tmp_path)) - 1, len(stored(tmp_path, "labels")) - 1)
    assert found == committed
    open_writer(tmp_path).close()
    assert stored(tmp_path) == dict.fromkeys("abcd", 1)
    assert stored(tmp_path, "labels") == dict.fromkeys("abcd", 1)
    assert not list(tmp_path.rglob("*.arrows"))


def numbered_below_the_table(folder: Path) -> None:
    """Three rows and labels wait, a file each, in a spool that was lost before: their numbers are
    below the one that the tables have seen."""
    writer = open_writer(folder, clock=SteppingClock(NOON + timedelta(days=1)))
    writer.append(tensor_rows(["a"]))
    writer.label([label("a", "7")])
    writer.close()
    shutil.rmtree(folder / "spool")
    (folder / "journal").rename(folder / "elsewhere")
    (folder / "journal").write_text("not a folder")
    early = open_writer(folder, commit_bytes=1, flush_within=timedelta(seconds=0.1))
    for name in ("b", "c", "d"):
        early.append(tensor_rows([name]))
        early.label([label(name, "7")])
    early.close()
    (folder / "journal").unlink()
    (folder / "elsewhere").rename(folder / "journal")


def test_new_numbers_are_on_the_disk_before_a_commit_counts_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power loss that brought the old names back would have them taken for stored."""
    numbered_below_the_table(tmp_path)
    spool = tmp_path / "spool/digits/server-1"
    old = {file.name for file in spool.glob("*-predictions.arrows")}
    log = tmp_path / "journal/digits/predictions/_delta_log"
    before = len(list(log.glob("*.json")))
    forced: list[set[str]] = []

    def recording(handle: int) -> None:
        real(handle)
        if Path(f"/proc/self/fd/{handle}").readlink() == spool:
            names = {file.name for file in spool.glob("*-predictions.arrows")}
            if len(list(log.glob("*.json"))) == before:
                forced.append(names)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", recording)
    open_writer(tmp_path).close()
    assert len(old) == 3
    assert forced[-1].isdisjoint(old)
    assert len(forced[-1]) == 3
    assert stored(tmp_path) == dict.fromkeys("abcd", 1)
