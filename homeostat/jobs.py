"""What the loop hands to a child process and what comes back, and how such a child runs.

A job is `python -m ROOM VERB FOLDER`: it reads FOLDER/spec.json, works, and writes
FOLDER/result.json by an atomic rename. Whoever finds a result.json may use it without running the
job again: that is how a job survives the death of the process that started it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from homeostat.errors import HomeostatError, JobError, ProgramError
from homeostat.records import (
    GateReport,
    ModelSpec,
    Verdict,
    VerdictKind,
    VersionRef,
    Window,
    from_json,
    to_json,
)

S = TypeVar("S")

SPEC = "spec.json"
RESULT = "result.json"


@dataclass(frozen=True, kw_only=True)
class _Envelope:
    error: str | None
    result: msgspec.Raw
    tail: str = ""  # the last lines of what failed inside the job


@dataclass(frozen=True, kw_only=True)
class CheckJob:
    """python -m monitor check FOLDER -> Verdict"""

    check_id: str
    project: str
    window: Window
    spec: ModelSpec
    training_reference: str  # Parquet: features and the version's own predictions on them
    reference: str | None  # rebased on production; None: not yet, this window may become it
    rebase_to: str  # where to write the reference this window becomes
    baseline_error: float
    baseline_rows: int


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class DatasetJob:
    """python -m retrain dataset FOLDER -> DatasetResult; files land in `output`"""

    run_id: str
    project: str
    output: str  # folder: train.parquet, holdout.parquet, contradicted.json
    spec: ModelSpec | None  # the champion's; None: the first version
    verdict_kind: VerdictKind | None
    base_train: str | None  # the champion's own training set; None: [model] training_data
    base_holdout: str | None  # rows the champion's gate kept: now free to train on
    base_contradicted: str | None
    since_us: int | None  # labelled rows older than this are in base_train already
    until_us: int | None  # newer ones were not checked yet


@dataclass(frozen=True, kw_only=True)
class DatasetResult:
    train_rows: int
    new_rows: int  # of train_rows, from the journal
    holdout_rows: int
    dropped_rows: int  # old rows that newer labels contradict
    contradicted_test_rows: int


@dataclass(frozen=True, kw_only=True)
class GateJob:
    """python -m retrain gate FOLDER -> GateResult; reference.parquet lands in `output`"""

    run_id: str
    project: str
    output: str  # the run's folder, with the dataset job's files in it
    candidate: VersionRef
    champion: VersionRef | None
    verdict_kind: VerdictKind | None


@dataclass(frozen=True, kw_only=True)
class GateResult:
    report: GateReport


@dataclass(frozen=True, kw_only=True)
class UpkeepJob:
    """python -m homeostat.journal upkeep FOLDER -> UpkeepResult"""

    project: str
    since: datetime | None  # when the last one ended well


@dataclass(frozen=True, kw_only=True)
class UpkeepResult:
    """What was done to the log's tables, and how large they are now."""

    expired_days: tuple[str, ...]
    expired_rows: int
    files_replaced: int  # small ones, by files_written large ones
    files_written: int
    files_removed: int  # from the disk: replaced long enough ago, or left by a commit cut off
    bytes_removed: int
    rows: int
    files: int
    bytes: int  # of all tables
    seconds: float


def write_atomically(path: Path, data: bytes) -> None:
    """All of it or nothing, even when killed or when the power goes."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # until now the new name is only in memory
    finally:
        os.close(folder)


def read_result(folder: Path, type_: type[S]) -> S | None:
    """The result of a job, None where there is none yet; raises JobError for a failure."""
    try:
        data = (folder / RESULT).read_bytes()
    except FileNotFoundError:
        return None
    envelope = from_json(data, _Envelope)
    if envelope.error is not None:
        raise JobError(envelope.error, tail=envelope.tail)
    return from_json(bytes(envelope.result), type_)


def run_job(folder: Path, type_: type[S], work: Callable[[S], Any]) -> int:
    """The whole of a job's process, given its work; the exit status."""
    try:
        result = work(from_json((folder / SPEC).read_bytes(), type_))
        envelope = _Envelope(error=None, result=msgspec.Raw(to_json(result)))
    except HomeostatError as error:
        tail = error.tail if isinstance(error, ProgramError) else ""
        envelope = _Envelope(error=str(error), result=msgspec.Raw(b"null"), tail=tail)
        sys.stderr.write(f"{error}\n{tail}\n")
    write_atomically(folder / RESULT, to_json(envelope))
    return int(envelope.error is not None)
