"""A batch run that is killed anywhere: the same command goes on, and it is as if it never was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from score_kit import FEATURES, command_of, frame, score, shapes_project

from homeostat.journal.reader import Journal
from homeostat.scoring.inputs import open_input
from homeostat.settings import Settings

ROWS = 120_000
BALLAST = 1600  # bytes beside each row, so that a part has few rows and there are some of them
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return shapes_project(tmp_path_factory.mktemp("killed"), runtime="onnx")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "in.parquet"
    ballast = pa.repeat("x" * BALLAST, ROWS)
    table = frame(ROWS).append_column("ballast", ballast)
    pq.write_table(table, path, row_group_size=50_000, use_dictionary=False)
    assert len(list(open_input(str(path)).parts())) > 4
    return path


# The same command, but that it comes no further than before the record of its second part: however
# late the kill is, it meets a run that has not ended.
HELD = """
import sys, threading
from homeostat.scoring.ledger import Ledger
from loop.cli import cli
record, recorded = Ledger.add, []

def add(ledger, done):
    if recorded:
        threading.Event().wait()
    recorded.append(done)
    record(ledger, done)

Ledger.add = add
cli(sys.argv[1:])
"""
KILLS = 3


def killed_and_done(
    settings: Settings, source: Path, target: Path, *options: str, seed: int
) -> None:
    """Give the command again and again, killed after it has done some more; then to its end."""
    chance = random.Random(seed)
    command = command_of(settings, source, target, *options)
    held = [sys.executable, "-P", "-c", HELD, *command[command.index("loop") + 1 :]]
    done = target.with_name(f"{target.name}.score") / "done.jsonl"
    for kills in range(KILLS):
        process = _started(held)
        _wait_for_parts(process, done, kills + 1)
        time.sleep(chance.random() * 0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)  # its workers find out by themselves
        process.wait()
        assert done.read_bytes().count(b"\n") == kills + 1
    process = _started(command)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error.decode()


def _started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ,
    )


def _wait_for_parts(process: subprocess.Popen[bytes], done: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while not done.exists() or done.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_into_parquet_and_the_log(shapes: Settings, source: Path, tmp_path: Path) -> None:
    """kill -9 while parts are read, answered and logged: every row once in the output and in the
    log, with the same answers as of a run that nobody killed."""
    assert score(shapes, source, tmp_path / "whole.parquet", "--workers", "1").status == 0
    target = tmp_path / "out.parquet"
    killed_and_done(shapes, source, target, "--log", "--workers", "1", seed=1)
    whole, found = pq.read_table(tmp_path / "whole.parquet"), pq.read_table(target)
    assert found.drop_columns(["prediction_id"]).equals(whole.drop_columns(["prediction_id"]))
    journal = Journal(shapes.journal_path, shapes.model.name, shapes.model.task)
    now = datetime.now(UTC)
    logged = journal.window(now - DAY, now + DAY, FEATURES, roles=("batch",))
    assert logged.num_rows == ROWS
    assert set(logged["_prediction_id"].to_pylist()) == set(found["prediction_id"].to_pylist())
    table = DeltaTable(f"{shapes.journal_path}/{shapes.model.name}/predictions")
    assert table.to_pyarrow_dataset().count_rows() == ROWS  # once in the table itself, too
    assert journal.window(now - DAY, now + DAY, FEATURES).num_rows == 0  # it is no traffic


def test_killed_into_a_delta_table_by_two_processes(
    shapes: Settings, source: Path, tmp_path: Path
) -> None:
    """Each part is appended to the table once, whatever died when."""
    target = tmp_path / "out"
    options = ("--format", "delta", "--workers", "2", "--keep", "others")
    killed_and_done(shapes, source, target, *options, seed=2)
    found = DeltaTable(target).to_pyarrow_table()
    assert found.num_rows == ROWS
    assert max(Counter(found["note"].to_pylist()).values()) == 1
    assert len(set(found["prediction_id"].to_pylist())) == ROWS


def test_a_line_cut_off_in_the_record_of_parts(
    shapes: Settings, source: Path, tmp_path: Path
) -> None:
    """A kill in the middle of a write leaves half a line: its part is done again."""
    target = tmp_path / "out"
    assert score(shapes, source, target).status == 0
    state = tmp_path / "out.score"
    lines = (state / "done.jsonl").read_bytes()
    (state / "done.jsonl").write_bytes(lines[:-20])
    (state / "finished.json").unlink()
    assert score(shapes, source, target).status == 0
    assert (state / "done.jsonl").read_bytes().count(b"\n") == lines.count(b"\n")
    parts = [pq.read_table(part) for part in sorted(target.glob("part-*"))]
    assert pa.concat_tables(parts).num_rows == ROWS


MEASURED = """
import sys
from loop.cli import cli
project, *runs = sys.argv[1:]
for source in runs:
    command = ["--project", project, "score", source, f"{source}-out", "--workers", "1"]
    command += ["--format", "parquet"]
    try:
        cli(command, standalone_mode=False)
    except SystemExit as ended:
        assert ended.code == 0, source
    # not getrusage's, which begins with that of the process that started this one
    (peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print("peak", int(peak) * 1024, flush=True)
"""
MORE_ROWS = 800_000


def test_memory_does_not_grow_with_the_input(shapes: Settings, tmp_path: Path) -> None:
    """Of either kind, many parts take as much memory as a few: no row leaves 80 bytes behind."""
    sources = []
    for kind, few in (("parquet", 150_000), ("csv", 300_000)):
        for count in (few, few + MORE_ROWS):
            path = tmp_path / f"in{count}.{kind}"
            table = frame(count)
            if kind == "csv":
                pacsv.write_csv(table, path)
            else:
                pq.write_table(table, path, row_group_size=count)
            sources.append(str(path))
    command = [sys.executable, "-P", "-c", MEASURED, str(shapes.project), *sources]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    few, many, few_lines, many_lines = (
        int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak")
    )
    assert many - few < 80 * MORE_ROWS
    assert many_lines - few_lines < 80 * MORE_ROWS
