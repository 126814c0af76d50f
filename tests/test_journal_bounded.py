"""What waits for the tables is bounded in memory and on disk, and the counters say what became of
every row."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable
from journal_kit import (
    EVER,
    PIXELS,
    column_rows,
    ids_of,
    label,
    open_journal,
    open_writer,
    stored,
    tensor_rows,
    until,
)

from homeostat.errors import JournalFull, JournalUnavailable
from homeostat.journal.encoding.recording import Recording
from homeostat.journal.spooling.limits import Limits
from homeostat.journal.writer import JournalWriter

SPOOL, MEMORY = 20_000, 10_000
SOON = timedelta(seconds=0.1)
WITHIN = timedelta(seconds=30)

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from homeostat.journal.spooling.limits import Limits
from journal_kit import open_writer, tensor_rows
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = open_writer(Path(sys.argv[1]), limits=Limits(when_full="drop"))
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
for number in range(200):
    writer.append(tensor_rows([f"row-{number}"]))
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
writer.append(tensor_rows(["after"]))
writer.flush()
level = writer.level()
print(level.received, level.stored, level.dropped, level.waiting)
writer.close()
"""

FLOOD = """
import sys
from pathlib import Path
from homeostat.journal.spooling.limits import Limits
from journal_kit import open_writer, tensor_rows

def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024

durability, folder = sys.argv[1], Path(sys.argv[2])
limits = Limits(memory=2_000_000, spool=2_000_000, when_full="drop")
writer = open_writer(folder, durability=durability, limits=limits)
batches = [tensor_rows([f"{n}-{i}" for i in range(200)]) for n in range(20)]

def flood(times):
    for n in range(times):
        writer.append(batches[n % 20])

flood(500)
before = anonymous()
flood(5000)
level = writer.level()
print(anonymous() - before, level.received, level.dropped, level.memory_bytes, level.spool_bytes)
"""


def child(program: str, *arguments: object) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == 0, done.stderr
    return [int(each) for each in done.stdout.split()]


def away(folder: Path) -> Path:
    """The tables' storage does not answer until this file is gone."""
    file = folder / "journal"
    file.write_text("not a folder")
    return file


def bounded(folder: Path, **changes: Any) -> JournalWriter:
    given: dict[str, Any] = {
        "limits": Limits(memory=MEMORY, spool=SPOOL),
        "flush_within": SOON,
        "commit_every": timedelta(seconds=0.05),
    }
    return open_writer(folder, **(given | changes))


def fill(writer: JournalWriter, prefix: str = "row") -> list[str]:
    """Rows until one is refused; the ids of those that were taken."""
    taken: list[str] = []
    while True:
        name = f"{prefix}-{len(taken)}"
        try:
            writer.append(tensor_rows([name]))
        except JournalFull:
            return taken
        taken.append(name)


def fill_with_labels(writer: JournalWriter) -> int:
    """Labels of a megabyte, until one is refused; how many were taken."""
    for number in range(1_000):
        try:
            writer.label([label(f"row-{number}", "7" * 1_000_000)])
        except JournalFull:
            return number
    raise AssertionError("a gigabyte of labels was taken")


def adds_up(writer: JournalWriter) -> bool:
    at = writer.level()
    out = at.stored + at.dropped + at.rejected + at.sampled_out + at.waiting
    return at.received + at.recovered == out


def test_full_spool_refuses_rows_and_keeps_what_it_took(tmp_path: Path) -> None:
    """With block, a row without room is refused at once, and every other one is stored once."""
    storage = away(tmp_path)
    writer = bounded(tmp_path)
    taken = fill(writer)
    assert len(taken) > 10
    with pytest.raises(JournalFull, match=r"20,000 \(journal.spool\)"):
        writer.append(tensor_rows(["refused"]))
    level = writer.level()
    assert (level.received, level.waiting, level.stored) == (len(taken), len(taken), 0)
    # the limit is for rows; each file has a head besides
    assert level.spool_bytes < SPOOL + 2_000
    assert adds_up(writer)
    writer.close()
    storage.unlink()
    again = bounded(tmp_path, flush_within=WITHIN)
    again.flush()
    level = again.level()
    assert (level.recovered, level.stored, level.waiting) == (len(taken), len(taken), 0)
    assert level.spool_bytes == 0
    assert adds_up(again)
    again.close()
    assert stored(tmp_path) == dict.fromkeys(taken, 1)


def test_full_spool_drops_rows_and_counts_them(tmp_path: Path) -> None:
    """With drop, append never fails; what was given is stored or counted as dropped."""
    storage = away(tmp_path)
    limits = Limits(spool=SPOOL, when_full="drop")
    writer = bounded(tmp_path, limits=limits, flush_within=WITHIN)
    for number in range(500):
        writer.append(tensor_rows([f"row-{number}"]), wait=5.0)
    level = writer.level()
    assert level.received == 500
    assert 0 < level.dropped < 500
    assert adds_up(writer)
    storage.unlink()
    writer.flush()
    level = writer.level()
    assert level.stored + level.dropped == 500
    assert level.waiting == 0
    writer.append(tensor_rows(["after"]))
    writer.close()
    assert len(stored(tmp_path)) == level.stored + 1


@pytest.mark.parametrize("durability", ["async", "spool", "sync"])
def test_blocked_rows_go_on_when_there_is_room(tmp_path: Path, durability: str) -> None:
    """Whoever waits for room gets it once the storage is back, and nothing is lost."""
    storage = away(tmp_path)
    writer = bounded(tmp_path, durability=durability, flush_within=WITHIN)
    taken = fill(writer)
    threads = [
        threading.Thread(target=writer.append, args=(tensor_rows([f"late-{n}"]), 60.0))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    storage.unlink()
    for thread in threads:
        thread.join()
    writer.close()
    assert adds_up(writer)
    assert stored(tmp_path) == dict.fromkeys([*taken, "late-0", "late-1", "late-2"], 1)


def test_full_spool_is_committed_at_once(tmp_path: Path) -> None:
    """Rows that find no room do not wait until it is time for a commit."""
    writer = bounded(tmp_path, commit_every=timedelta(hours=1), flush_within=WITHIN)
    for number in range(200):
        writer.append(tensor_rows([f"row-{number}"]), wait=60.0)
    writer.close()
    assert stored(tmp_path) == {f"row-{number}": 1 for number in range(200)}


def test_waiting_for_room_ends(tmp_path: Path) -> None:
    """After the time it was given, a waiting row is refused."""
    away(tmp_path)
    writer = bounded(tmp_path)
    fill(writer)
    with pytest.raises(JournalFull):
        writer.append(tensor_rows(["late"]), wait=0.05)
    writer.close()


def test_backlog_in_memory_has_its_own_limit(tmp_path: Path) -> None:
    """With async and a full spool, memory takes its limit and no more; all of it is stored."""
    storage = away(tmp_path)
    writer = bounded(tmp_path, durability="async", flush_within=WITHIN)
    taken = fill(writer)
    while writer.level().memory_bytes < MEMORY - 1_000:  # rows went on into the spool
        taken += fill(writer, f"more-{len(taken)}")
    level = writer.level()
    assert level.memory_bytes <= MEMORY
    assert level.spool_bytes < SPOOL + 2_000
    assert level.waiting == level.received == len(taken)
    assert level.oldest is not None
    storage.unlink()
    writer.flush()
    writer.close()
    assert stored(tmp_path) == dict.fromkeys(taken, 1)


def test_log_full_of_rows_takes_labels(tmp_path: Path) -> None:
    """Labels have room of their own; when that is full too, they are refused, never dropped."""
    storage = away(tmp_path)
    writer = bounded(tmp_path, limits=Limits(spool=SPOOL, when_full="drop"))
    for number in range(500):
        writer.append(tensor_rows([f"row-{number}"]))
    assert writer.level().dropped > 0
    given = fill_with_labels(writer)
    assert given > 50
    assert writer.level().labels == given
    writer.close()
    storage.unlink()
    open_writer(tmp_path).close()
    assert stored(tmp_path, "labels") == {f"row-{number}": 1 for number in range(given)}


def test_full_disk_drops_rows_and_counts_them(tmp_path: Path) -> None:
    """A disk that takes no more is like a full spool; rows go on being stored when it does."""
    received, in_table, dropped, waiting = child(FULL_DISK, tmp_path)
    assert received == 201
    assert 0 < dropped < 200
    assert in_table + dropped == received
    assert waiting == 0
    found = stored(tmp_path)
    assert found["after"] == 1
    assert len(found) == sum(found.values()) == in_table


@pytest.mark.parametrize("durability", ["async", "spool"])
def test_memory_does_not_grow_while_rows_are_dropped(tmp_path: Path, durability: str) -> None:
    """A million rows at a log that is full: the process stays as large as it was."""
    away(tmp_path)
    grown, received, dropped, memory, spool = child(FLOOD, durability, tmp_path)
    assert received == 1_100_000
    assert dropped > 1_000_000
    assert memory <= 2_000_000
    assert spool < 3_000_000
    assert grown < 8_000_000


def test_thousands_of_segments_are_stored_in_few_commits(tmp_path: Path) -> None:
    """What many short lives left over is put together, and each row is stored once."""
    storage = away(tmp_path)
    writer = open_writer(tmp_path, commit_bytes=1, flush_within=SOON)
    for number in range(1_200):
        writer.append(tensor_rows([f"row-{number}"]))
    writer.close()
    assert len(list(tmp_path.glob("spool/digits/server-1/*.arrows"))) == 1_200
    storage.unlink()
    again = open_writer(tmp_path)
    again.close()
    assert again.level().recovered == 1_200
    assert stored(tmp_path) == {f"row-{number}": 1 for number in range(1_200)}
    assert DeltaTable(tmp_path / "journal/digits/predictions").version() < 10


def test_a_file_of_rows_has_a_largest_size(tmp_path: Path) -> None:
    """Whatever commit_bytes allows: a commit has at least one of them in memory."""
    away(tmp_path)
    writer = open_writer(tmp_path, commit_bytes=100_000_000_000, flush_within=SOON)
    wide = np.zeros((1, 4_000_000), np.float32)
    for number in range(34):
        writer.append(tensor_rows([f"row-{number}"], embedding=wide))
    sizes = [file.stat().st_size for file in tmp_path.glob("spool/digits/server-1/*.arrows")]
    writer.close()
    assert len(sizes) >= 2
    assert max(sizes) < 256_000_000 + 17_000_000


def test_versions_that_take_turns_share_files_and_commits(tmp_path: Path) -> None:
    """Two versions with other columns, row by row: a file for each, and commits for both."""
    writer = open_writer(tmp_path)
    for number in range(50):
        writer.append(column_rows([f"old-{number}"], {"x": [1.0]}))
        writer.append(column_rows([f"new-{number}"], {"x": [2.0], "y": ["b"]}, version="2"))
    # two, and as many again for each round of the committer that came in between
    assert len(list(tmp_path.glob("spool/digits/server-1/*.arrows"))) <= 6
    writer.close()
    assert DeltaTable(tmp_path / "journal/digits/predictions").version() <= 3
    window = open_journal(tmp_path).window(*EVER, ["x", "y"])
    assert Counter(zip(window["x"].to_pylist(), window["y"].to_pylist(), strict=True)) == {
        (1.0, None): 50,
        (2.0, "b"): 50,
    }


def test_rows_that_were_set_aside_take_up_room_until_somebody_moves_them(tmp_path: Path) -> None:
    """What fits no table cannot fill the disk; the message says what to do, and it helps."""
    # nothing is stored, or set aside, before it is flushed or the spool is full
    writer = bounded(tmp_path, commit_every=timedelta(hours=1), flush_within=WITHIN)
    writer.append(column_rows(["good"], {"x": [1.0]}))
    writer.flush()
    for number in range(40):
        writer.append(column_rows([f"bad-{number}"], {"x": ["tall"]}))
    with pytest.raises(JournalUnavailable, match="input_x"):
        writer.flush()
    assert writer.level().rejected == 40
    for number in range(40, 80):
        with suppress(JournalFull):
            writer.append(column_rows([f"bad-{number}"], {"x": ["tall"]}))
    with pytest.raises(JournalFull, match="fit no table and lie in rejected/: move them"):
        writer.append(column_rows(["refused"], {"x": ["tall"]}))
    until(lambda: adds_up(writer))  # what is counted one after the other while rows are set aside
    for file in tmp_path.glob("spool/digits/server-1/rejected/*.arrows"):
        file.unlink()
    writer.append(column_rows(["after"], {"x": [1.0]}), wait=60.0)
    writer.close()
    assert adds_up(writer)
    assert "after" in stored(tmp_path)


def test_counters_add_up_with_a_sample(tmp_path: Path) -> None:
    """Rows that the sample left out are counted as such, and take up no room."""
    writer = open_writer(tmp_path, recording=Recording(sample=0.25))
    for number in range(20):
        writer.append(tensor_rows([f"row-{number}-{at}" for at in range(20)]))
    writer.flush()
    level = writer.level()
    assert level.received == 400
    assert 200 < level.sampled_out < 360
    assert level.stored == 400 - level.sampled_out
    assert adds_up(writer)
    writer.close()
    assert len(ids_of(open_journal(tmp_path).window(*EVER, PIXELS))) == level.stored
