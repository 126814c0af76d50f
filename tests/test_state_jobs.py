"""Records and jobs cross processes as JSON, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from homeostat.errors import JobError, TrainingError
from homeostat.jobs import RESULT, SPEC, read_result, run_job, write_atomically
from homeostat.records import (
    DataBug,
    ErrorComparison,
    Feature,
    FeatureKind,
    Label,
    ModelSpec,
    Rollout,
    Score,
    Task,
    Trial,
    TrialKind,
    Verdict,
    VerdictKind,
    VersionRef,
    Window,
    from_json,
    to_json,
)

NOW = datetime(2026, 11, 3, 12, 0, 0, 123456, tzinfo=UTC)
ROOT = Path(__file__).parent.parent
REF = VersionRef(version="7", digest="d" * 64)

RECORDS = [
    REF,
    Rollout(model="shop", epoch=3, champion=REF, previous=REF, created_at=NOW, run_id="r"),
    Rollout(
        model="shop",
        epoch=4,
        champion=REF,
        trial=Trial(version=REF, kind=TrialKind.CANARY, share=0.25),
        created_at=NOW,
    ),
    Label(prediction_id="p", value="3", time=NOW),
    ModelSpec(
        model="shop",
        version="7",
        runtime="torch",
        task=Task.CLASSIFICATION,
        features=(Feature(name="a"), Feature(name="b", kind=FeatureKind.CATEGORY)),
        tensor_shape=(1, 8, 8),
        classes=("no", "yes"),
        files={"model/MLmodel": "a" * 64},
    ),
    Verdict(
        check_id="c",
        window=Window(model="shop", start=NOW - timedelta(hours=1), end=NOW, versions=("7",)),
        version="7",
        kind=VerdictKind.CONCEPT_DRIFT,
        reason="errors rose",
        rows=500,
        labelled=100,
        drift_share=0.25,
        scores=(Score(column="a", method="psi", value=0.3, threshold=0.2, drifted=True),),
        bugs=(DataBug(column="b", problem="missing", rows=3, share=0.1, detail="3 of 30"),),
        errors=ErrorComparison(
            metric="error_rate", baseline=0.1, current=0.3, labelled=100, p_value=0.001, worse=True
        ),
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was(record: object) -> None:
    """Tuples, enums, times and what is nested in them."""
    assert from_json(to_json(record), type(record)) == record


def test_a_record_of_before_there_were_trials_still_reads() -> None:
    """And a share that is none is told when the record is read."""
    old = (
        '{"model":"shop","epoch":3,"champion":{"version":"7","digest":"d"},'
        '"created_at":"2026-11-03T12:00:00Z"}'
    )
    assert from_json(old, Rollout).trial is None
    wrong = old[:-1] + ',"trial":{"version":{"version":"8","digest":"d"},"kind":"ab","share":1.5}}'
    with pytest.raises(msgspec.ValidationError, match=r"share .* not 1\.5"):
        from_json(wrong, Rollout)


@dataclass(frozen=True, kw_only=True)
class Order:
    number: int


@dataclass(frozen=True, kw_only=True)
class Bill:
    total: int


def test_a_job_leaves_its_result(tmp_path: Path) -> None:
    """Spec in, result out; before that there is none."""
    (tmp_path / SPEC).write_bytes(to_json(Order(number=20)))
    assert read_result(tmp_path, Bill) is None
    assert run_job(tmp_path, Order, lambda order: Bill(total=order.number + 1)) == 0
    assert read_result(tmp_path, Bill) == Bill(total=21)
    assert {file.name for file in tmp_path.iterdir()} == {SPEC, RESULT}


def test_a_job_that_fails_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error is in the result, and on its last lines of output with what the program said."""

    def work(order: Order) -> Bill:
        raise TrainingError("the program crashed", tail="ZeroDivisionError")

    (tmp_path / SPEC).write_bytes(to_json(Order(number=1)))
    assert run_job(tmp_path, Order, work) == 1
    with pytest.raises(JobError, match="the program crashed") as raised:
        read_result(tmp_path, Bill)
    assert raised.value.tail == "ZeroDivisionError"
    assert "ZeroDivisionError" in capsys.readouterr().err


SYNCED = """
import os, stat, sys
from pathlib import Path
from homeostat.jobs import write_atomically
path, sync = Path(sys.argv[1]), os.fsync
def told(fd):
    print("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file", path.exists())
    sync(fd)
os.fsync = told
write_atomically(path, b"new")
"""


def test_the_file_then_its_name_reach_the_disk(tmp_path: Path) -> None:
    """A rename that only memory knows of is lost with the power."""
    command = [sys.executable, "-c", SYNCED, str(tmp_path / "file")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["file False", "folder True"]


KILLED = """
import os, sys
from pathlib import Path
from homeostat.jobs import write_atomically
class Dies(bytes): pass
path = Path(sys.argv[1])
write_atomically(path, b"old")
os.fsync = lambda fd: os.kill(os.getpid(), 9)
write_atomically(path, b"new" * 1000)
"""


def test_a_writer_killed_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    """All of it or nothing."""
    path = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert path.read_bytes() == b"old"
    write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer"
