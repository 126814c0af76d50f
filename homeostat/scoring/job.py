"""What a run of batch scoring is: all that must be the same when it goes on after a kill."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from homeostat.records import VersionRef

Format = Literal["parquet", "csv", "delta"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """As the command gives them. Another value of any of them is another run."""

    input: str
    format: Format
    keep: tuple[str, ...] | Literal["all", "others", "none"] = "all"
    prefix: str = ""  # before the names of the columns that are added
    id_column: str | None = None  # the caller's own ids
    tensor: str | None = None  # the column of lists that holds a whole row
    log: bool = False
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    run: str  # its id
    options: Options
    model: str
    version: VersionRef
    input_state: str
    started_ms: int


def differences(begun: Job, options: Options, version: str | None) -> list[str]:
    """What is asked otherwise now, for people; `version` None asks for none of its own."""
    found = []
    if version is not None and version != begun.version.version:
        found.append(f"--version was {begun.version.version}, now {version}")
    for field in fields(Options):
        before, now = getattr(begun.options, field.name), getattr(options, field.name)
        if before != now:
            name = "INPUT" if field.name == "input" else f"--{field.name.replace('_', '-')}"
            found.append(f"{name} was {_in_words(before)}, now {_in_words(now)}")
    return found


def _in_words(value: str | bool | tuple[str, ...] | None) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, bool):
        return "given" if value else "not given"
    return value or "not given"


@dataclass(frozen=True, kw_only=True)
class PartDone:
    number: int
    name: str
    size: int  # of the input's total
    rows: int  # read
    bad: int
    seconds: float


@dataclass(frozen=True)
class Places:
    """Where a run keeps what it writes. Its state lies in a folder beside the output."""

    output: Path
    format: Format
    name: str = ""  # of several runs that append to one table

    @property
    def single(self) -> bool:
        """The output is one file, put together at the end."""
        return self.format != "delta" and self.output.suffix.lower() == f".{self.format}"

    @property
    def state(self) -> Path:
        folder = self.output.with_name(f"{self.output.name}.score")
        return folder / "runs" / self.name if self.name else folder

    @property
    def job(self) -> Path:
        return self.state / "job.json"

    @property
    def done(self) -> Path:
        return self.state / "done.jsonl"

    @property
    def finished(self) -> Path:
        return self.state / "finished.json"

    @property
    def bad_rows(self) -> Path:
        return self.state / "bad_rows.csv"

    @property
    def staged(self) -> Path:
        return self.state / "staged"

    @property
    def parts(self) -> Path:
        """Where answers of a part lie: for good, or until they are put together."""
        return self.output if self.format != "delta" and not self.single else self.staged

    def part(self, name: str) -> Path:
        return self.parts / f"part-{name}.{'csv' if self.format == 'csv' else 'parquet'}"

    def bad(self, name: str) -> Path:
        return self.staged / f"bad-{name}.jsonl"

    def log(self, name: str) -> Path:
        return self.staged / f"log-{name}.arrows"
