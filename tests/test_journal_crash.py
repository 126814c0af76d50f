"""Acknowledged rows are in the table exactly once, whenever the process that took them died."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable
from journal_kit import (
    EVER,
    NOON,
    PIXELS,
    SteppingClock,
    ids_of,
    label,
    open_journal,
    open_writer,
    tensor_rows,
)

from homeostat.errors import Conflict, JournalUnavailable

HERE = str(Path(__file__).parent)

APPENDER = """
import os, sys, time
from datetime import timedelta
from pathlib import Path
from homeostat.identifiers import uuid7_batch
from journal_kit import label, open_writer, tensor_rows
folder, durability, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
writer = open_writer(
    folder, durability=durability, commit_every=timedelta(seconds=0.05), commit_bytes=200_000
)
for count in range(seed, 10_000_000):
    ids = uuid7_batch(1 + count % 20)
    writer.append(tensor_rows(ids))
    os.write(1, "".join(f"row {each}\\n" for each in ids).encode())
    time.sleep(0.0005)  # or the backlog grows faster than two busy cores commit it
    if count % 7 == 0:
        writer.label([label(ids[0], "7")])
        os.write(1, f"label {ids[0]}\\n".encode())
"""

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

FULL_DISK = """
import resource, signal, sys
from datetime import timedelta
from pathlib import Path
from homeostat.errors import JournalUnavailable
from journal_kit import open_writer, tensor_rows
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = open_writer(Path(sys.argv[1]))
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
count = refused = 0
while refused < 3:
    count += 1
    try:
        writer.append(tensor_rows([f"row-{count}"]))
        print(f"row-{count}")
    except JournalUnavailable as problem:
        assert "free space" in str(problem)
        refused += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
writer.append(tensor_rows(["after"]))
print("after")
writer.close()
"""


def child(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": HERE},
    )


def stored(folder: Path, table: str = "predictions") -> Counter[str]:
    """How often each id is in the files of the table, read without our reader."""
    files = DeltaTable(folder / "journal" / "digits" / table).file_uris()
    rows = duckdb.sql(f"select prediction_id from read_parquet({files})").fetchall()
    return Counter(row[0] for row in rows)


def until_killed(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """What it printed until it was killed, so many seconds after its first line."""
    assert process.stdout is not None
    out = process.stdout.fileno()
    printed, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([out], [], [], max(deadline - time.monotonic(), 0))[0]:
            if not printed:
                deadline = time.monotonic() + seconds
            more = os.read(out, 1 << 20)
            assert more, "the child ended by itself"
            printed += more
    process.send_signal(signal.SIGKILL)
    printed += process.stdout.read()
    process.wait()
    process.stdout.close()
    return printed


def acknowledged(printed: bytes, kind: str) -> set[str]:
    whole = printed.decode().rpartition("\n")[0].splitlines()
    return {line.partition(" ")[2] for line in whole if line.startswith(kind)}


def test_killed_at_random_moments_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """After each kill -9 the next process stores what the last one had acknowledged, once."""
    moments = random.Random(5)
    rows: set[str] = set()
    labels: set[str] = set()
    for turn in range(6):
        process = child(APPENDER, tmp_path, "spool", turn)
        printed = until_killed(process, moments.uniform(0.02, 0.6))
        rows |= acknowledged(printed, "row")
        labels |= acknowledged(printed, "label")
    open_writer(tmp_path).close()
    found, found_labels = stored(tmp_path), stored(tmp_path, "labels")
    assert len(rows) > 100
    assert rows <= found.keys()
    assert set(found.values()) == {1}
    assert labels <= found_labels.keys()
    assert set(found_labels.values()) == {1}
    assert list(tmp_path.glob("spool/digits/server-1/*.arrows")) == []


@pytest.mark.parametrize("durability", ["async", "sync"])
def test_other_durabilities_keep_their_promise_over_a_kill(tmp_path: Path, durability: str) -> None:
    """sync loses nothing, async at most what came in the last moments."""
    process = child(APPENDER, tmp_path, durability, 1)
    printed = until_killed(process, 0.5)
    open_writer(tmp_path).close()
    found = stored(tmp_path)
    lost = acknowledged(printed, "row") - found.keys()
    assert set(found.values()) == {1}
    if durability == "sync":
        assert lost == set()
    else:
        # rows of the last moments only: what was given before a row that is stored, is stored
        order = [line[4:] for line in printed.decode().splitlines() if line.startswith("row")]
        safe = max(at for at, name in enumerate(order) if name in found)
        assert lost.isdisjoint(order[: safe + 1])
        assert len(lost) <= len(order) // 2


def test_segment_that_outlived_its_commit_is_not_stored_again(tmp_path: Path) -> None:
    """Killed between the Delta commit and the deletion of the spool file: still once."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a", "b"]))
    writer.label([label("a", "7")])
    spool = tmp_path / "spool/digits/server-1"
    kept = tmp_path / "kept"
    shutil.copytree(spool, kept)
    writer.close()
    for file in kept.glob("*.arrows"):
        shutil.copy(file, spool)
    again = open_writer(tmp_path)
    again.append(tensor_rows(["c"]))
    again.close()
    assert stored(tmp_path) == {"a": 1, "b": 1, "c": 1}
    assert stored(tmp_path, "labels") == {"a": 1}
    assert list(spool.glob("*.arrows")) == []


def test_torn_tail_leaves_the_whole_batches_before_it(tmp_path: Path) -> None:
    """Wherever a kill cut the spool file, exactly the batches written whole are stored."""
    sizes = [0]
    spool = tmp_path / "first/spool/digits/server-1"
    writer = open_writer(tmp_path / "first")
    for name in ("a", "b", "c"):
        writer.append(tensor_rows([name]))
        sizes.append(next(spool.glob("*.arrows")).stat().st_size)
    segment = next(spool.glob("*.arrows"))
    whole, name = segment.read_bytes(), segment.name
    writer.close()
    cuts = [1, 100, sizes[1] - 1, sizes[1], sizes[2] - 9, sizes[3] - 1, sizes[3]]
    for cut in cuts:
        folder = tmp_path / f"cut-{cut}"
        left = folder / "spool/digits/server-1"
        left.mkdir(parents=True)
        (left / name).write_bytes(whole[:cut])
        open_writer(folder).close()
        expected = [each for each, size in zip("abc", sizes[1:], strict=True) if size <= cut]
        assert ids_of(open_journal(folder).window(*EVER, PIXELS)) == expected
        assert list(left.glob("*.arrows")) == []


def test_full_disk_refuses_rows_and_harms_no_others(tmp_path: Path) -> None:
    """A row that found no room is refused; those before and after it are stored once."""
    process = child(FULL_DISK, tmp_path)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert stored(tmp_path) == dict.fromkeys(out.decode().split(), 1)


CUT_FAILS = """
import os, resource, signal, sys
from pathlib import Path
from homeostat.errors import JournalUnavailable
from journal_kit import open_writer, tensor_rows
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def refused(handle, size):
    raise OSError(5, "Input/output error")

os.ftruncate = refused
writer = open_writer(Path(sys.argv[1]))
writer.append(tensor_rows(["before"]))
size = next(Path(sys.argv[1]).glob("spool/digits/server-1/*.arrows")).stat().st_size
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, most))
try:
    writer.append(tensor_rows(["refused"]))
except JournalUnavailable:
    pass
else:
    raise SystemExit("it was taken")
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
writer.append(tensor_rows(["after"]))
writer.close()
"""


def test_file_that_cannot_be_cut_takes_no_more_rows(tmp_path: Path) -> None:
    """Half a message that stays in a file hides no row that comes after it."""
    process = child(CUT_FAILS, tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert stored(tmp_path) == {"before": 1, "after": 1}


def test_one_writer_id_cannot_be_used_twice_at_once(tmp_path: Path) -> None:
    """The second process is told, and may start once the first has closed."""
    first = open_writer(tmp_path)
    with pytest.raises(Conflict, match="writer id"):
        open_writer(tmp_path)
    first.close()
    open_writer(tmp_path).close()


def test_many_writers_append_to_one_table(tmp_path: Path) -> None:
    """Writers that start, create and commit at the same time lose and double nothing."""
    names = [f"server-{n}" for n in range(3)]

    def write(name: str) -> None:
        writer = open_writer(tmp_path, writer_id=name, commit_every=timedelta(seconds=0.01))
        for count in range(8):
            writer.append(tensor_rows([f"{name}-{count}"]))
            writer.label([label(f"{name}-{count}", "7")])
            writer.flush()
        writer.close()

    threads = [threading.Thread(target=write, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {f"{name}-{count}": 1 for name in names for count in range(8)}
    assert stored(tmp_path) == expected
    assert stored(tmp_path, "labels") == expected


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


def test_spool_drains_where_no_new_file_can_be_made(tmp_path: Path) -> None:
    """As on a full disk: what has to be noted before a commit is written in its place."""
    (tmp_path / "journal").write_text("not a folder")
    writer = open_writer(tmp_path, flush_within=timedelta(seconds=0.1))
    writer.append(tensor_rows(["a"]))
    writer.close()
    (tmp_path / "journal").unlink()
    spool = tmp_path / "spool/digits/server-1"
    noted = [file for file in spool.iterdir() if file.suffix != ".arrows"]
    before = {file: (file.stat().st_ino, file.stat().st_size) for file in noted}
    open_writer(tmp_path).close()
    assert stored(tmp_path) == {"a": 1}
    after = [file for file in spool.iterdir() if file.suffix != ".arrows"]
    assert {file: (file.stat().st_ino, file.stat().st_size) for file in after} == before


@pytest.mark.parametrize("broken", ["predictions", "labels"])
def test_table_that_takes_nothing_keeps_no_other_waiting(tmp_path: Path, broken: str) -> None:
    """Labels are stored beside a predictions table that is broken, and the other way round."""
    (tmp_path / "journal/digits").mkdir(parents=True)
    (tmp_path / "journal/digits" / broken).write_text("not a folder")
    writer = open_writer(tmp_path, flush_within=timedelta(seconds=2))
    writer.append(tensor_rows(["a"]))
    writer.label([label("a", "7")])
    with pytest.raises(JournalUnavailable, match=broken):
        writer.flush()
    other = {"predictions": "labels", "labels": "predictions"}[broken]
    assert stored(tmp_path, other) == {"a": 1}
    (tmp_path / "journal/digits" / broken).unlink()
    writer.close()
    assert stored(tmp_path, broken) == {"a": 1}


@pytest.mark.parametrize("at", ["head", "middle"])
def test_file_of_a_dead_process_that_is_damaged_is_kept(tmp_path: Path, at: str) -> None:
    """What a kill cannot have done is not passed over: what can be read is stored, and the file is
    set aside."""
    (tmp_path / "journal").write_text("not a folder")
    writer = open_writer(tmp_path, flush_within=timedelta(seconds=0.1))
    spool = tmp_path / "spool/digits/server-1"
    sizes = []
    for name in "abc":
        writer.append(tensor_rows([name]))
        sizes.append(next(spool.glob("*.arrows")).stat().st_size)
    writer.close()
    segment = next(spool.glob("*.arrows"))
    with segment.open("r+b") as file:
        file.seek({"head": 0, "middle": sizes[0]}[at])
        file.write(bytes(8))
    (tmp_path / "journal").unlink()
    again = open_writer(tmp_path)
    again.append(tensor_rows(["after"]))
    again.close()
    assert stored(tmp_path) == ({"after": 1} if at == "head" else {"a": 1, "after": 1})
    assert len(list(spool.glob("rejected/*.arrows"))) == 1
    assert list(spool.glob("*.arrows")) == []
    assert again.level().errors > 0


def test_file_that_somebody_cut_is_set_aside_and_told(tmp_path: Path) -> None:
    """Rows that were acknowledged and are no longer in the spool's file are not passed over."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a"]))
    writer.flush()
    writer.append(tensor_rows(["b"]))
    writer.append(tensor_rows(["c"]))
    spool = tmp_path / "spool/digits/server-1"
    segment = next(spool.glob("*.arrows"))
    os.truncate(segment, segment.stat().st_size - 10)
    with pytest.raises(JournalUnavailable, match="is damaged"):
        writer.flush()
    assert writer.level().rejected == 2
    writer.close()
    assert stored(tmp_path) == {"a": 1}
    assert len(list(spool.glob("rejected/*.arrows"))) == 1


def test_storage_away_is_not_felt_by_append(tmp_path: Path) -> None:
    """Rows wait in the spool, flush says so, and they are stored once the storage is back."""
    away = tmp_path / "journal"
    away.write_text("not a folder")
    writer = open_writer(tmp_path, flush_within=timedelta(seconds=0.3))
    writer.append(tensor_rows(["a"]))
    writer.label([label("a", "7")])
    with pytest.raises(JournalUnavailable, match="wait in the spool"):
        writer.flush()
    level = writer.level()
    assert (level.received, level.stored, level.labels) == (1, 0, 1)
    assert level.errors > 0
    assert level.spool_bytes > 0
    assert level.oldest is not None
    writer.close()
    restarted = open_writer(tmp_path, flush_within=timedelta(seconds=10))
    away.unlink()
    restarted.flush()
    assert restarted.level().stored == 1
    assert (restarted.level().spool_bytes, restarted.level().oldest) == (0, None)
    restarted.close()
    assert open_journal(tmp_path).window(*EVER, PIXELS)["_label"].to_pylist() == ["7"]


def test_rows_are_committed_without_a_flush(tmp_path: Path) -> None:
    """After commit_every, or as soon as the spool holds commit_bytes."""
    by_time = open_writer(tmp_path / "time", commit_every=timedelta(seconds=0.05))
    by_size = open_writer(tmp_path / "size", commit_bytes=1)
    for writer in (by_time, by_size):
        writer.append(tensor_rows(["a"]))
        deadline = time.monotonic() + 30
        while writer.level().stored < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert writer.level().stored == 1
        writer.close()
