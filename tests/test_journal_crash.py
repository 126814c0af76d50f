"""Acknowledged rows are in the table exactly once, whenever the process that took them died."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from crash_kit import acknowledged, child, until_killed
from deltalake.exceptions import TableNotFoundError
from journal_kit import EVER, PIXELS, ids_of, label, open_journal, open_writer, stored, tensor_rows

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


def test_killed_at_random_moments_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """After each kill -9 the next process stores what the last one had acknowledged, once."""
    moments = random.Random(5)
    rows: set[str] = set()
    labels: set[str] = set()
    for turn in range(60):
        if turn >= 6 and len(rows) > 100:  # a machine that is busy lets few come in a moment
            break
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
    printed = until_printed(process, 50_000)
    early = acknowledged(printed, "row")
    until_stored(tmp_path, early)  # meanwhile the child waits for somebody to read on
    printed += until_killed(process, 0.5)
    open_writer(tmp_path).close()
    found = stored(tmp_path)
    lost = acknowledged(printed, "row") - found.keys()
    assert len(early) > 100
    assert set(found.values()) == {1}
    if durability == "sync":
        assert lost == set()
    else:
        # rows of the last moments only: what was given before a row that is stored, is stored
        order = [line[4:] for line in printed.decode().splitlines() if line.startswith("row")]
        safe = max(at for at, name in enumerate(order) if name in found)
        assert lost.isdisjoint(order[: safe + 1])


def until_printed(process: subprocess.Popen[bytes], least: int) -> bytes:
    """So many bytes, however long they take."""
    assert process.stdout is not None
    printed = b""
    while len(printed) < least:
        more = os.read(process.stdout.fileno(), least)
        assert more, "the child ended by itself"
        printed += more
    return printed


def until_stored(folder: Path, ids: set[str], seconds: float = 60) -> None:
    """By a writer that nobody asks to."""
    left, deadline = ids, time.monotonic() + seconds
    while left:
        assert time.monotonic() < deadline, f"{len(left)} of {len(ids)} rows are in no table"
        time.sleep(0.02)
        with contextlib.suppress(TableNotFoundError):  # as long as nothing is
            left = ids - stored(folder).keys()


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
