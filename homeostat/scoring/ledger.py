"""What a run is and what it has done, on disk: how a run that was killed goes on."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import msgspec

from homeostat.errors import Conflict, InputError
from homeostat.jobs import write_atomically
from homeostat.records import from_json, to_json
from homeostat.scoring.job import Job, PartDone, Places


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The run's outcome, for whoever gives the same command again."""

    version: str
    rows: int
    bad: int
    parts: int
    seconds: float  # of all its tries together, in the parts


class Ledger:
    """One process at a time has it."""

    def __init__(self, places: Places, lock: IO[bytes]) -> None:
        self._places = places
        self._lock = lock
        self._lines: IO[bytes] | None = None

    def job(self) -> Job | None:
        """None where no run was begun."""
        try:
            return from_json(self._places.job.read_bytes(), Job)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise InputError(
                f"{self._places.job} cannot be read ({error}); begin anew with --restart"
            ) from error

    def begin(self, job: Job) -> None:
        write_atomically(self._places.job, to_json(job))

    def done(self) -> list[PartDone]:
        """In the order in which they were done; a line that a kill cut off does not count."""
        found, kept = [], 0
        path = self._places.done
        data = path.read_bytes() if path.exists() else b""
        for line in data.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            found.append(from_json(line, PartDone))
            kept += len(line)
        if kept < len(data):
            with path.open("r+b") as file:
                file.truncate(kept)
        return found

    def add(self, done: PartDone) -> None:
        """On the disk when it returns."""
        if self._lines is None:
            self._lines = self._places.done.open("ab")
        self._lines.write(to_json(done) + b"\n")
        self._lines.flush()
        os.fsync(self._lines.fileno())

    def finished(self) -> Finished | None:
        try:
            return from_json(self._places.finished.read_bytes(), Finished)
        except FileNotFoundError:
            return None

    def finish(self, finished: Finished) -> None:
        write_atomically(self._places.finished, to_json(finished))
        shutil.rmtree(self._places.staged, ignore_errors=True)

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()


@contextmanager
def ledger_of(places: Places, *, restart: bool) -> Iterator[Ledger]:
    """Raises Conflict while another process works on the same output, and InputError where there
    is an output that no run of ours began."""
    if not places.job.exists():
        _refuse_strangers(places)
    places.state.mkdir(parents=True, exist_ok=True)
    with (places.state / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(f"another process is writing {places.output}; let it end") from None
        if restart:
            _remove(places)
        places.staged.mkdir(exist_ok=True)
        places.parts.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(places, lock)
        try:
            yield ledger
        finally:
            ledger.close()


def _refuse_strangers(places: Places) -> None:
    """Nothing that somebody else put there is written over, or mixed with ours."""
    output = places.output
    if not output.exists() or (places.format == "delta" and (output / "_delta_log").is_dir()):
        return
    if output.is_file() or any(output.iterdir()):
        raise InputError(f"{output} is there already: name another OUTPUT, or move it away")


def _remove(places: Places) -> None:
    """The run that was begun, and what it wrote. Rows in a Delta table or the log stay."""
    if places.single:
        places.output.unlink(missing_ok=True)
    elif places.format != "delta":
        for path in [*places.output.glob("part-*"), *places.output.glob(".part-*")]:
            path.unlink()
    shutil.rmtree(places.staged, ignore_errors=True)
    for path in (places.finished, places.done, places.bad_rows, places.job):
        path.unlink(missing_ok=True)
