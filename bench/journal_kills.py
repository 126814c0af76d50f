"""kill -9 under load, round after round: what the log acknowledged is in its tables, once."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow.parquet as pq

from bench import journal_load
from bench.options import Options, Steps
from bench.processes import ROOT, environment, python
from bench.results import Findings, Table
from bench.watching import CREATED, DELETED, happened, watched
from homeostat.journal.delta import commits, tables
from homeostat.journal.delta.tables import TableRef
from homeostat.journal.spooling import segments
from homeostat.records import Task

PACKAGES = ("deltalake", "pyarrow", "numpy")
LONGEST = 0.5  # seconds from the first acknowledged row to the kill
START_LIMIT = 60.0


@dataclass(frozen=True, kw_only=True)
class Variant:
    name: str
    writers: int
    rounds: int
    inside: bool = False  # killed when a file of a commit appears, or one of the spool goes


VARIANTS = (
    Variant(name="one writer, at a random moment", writers=1, rounds=200),
    Variant(name="one writer, inside a commit", writers=1, rounds=150, inside=True),
    Variant(name="two writers, at random moments", writers=2, rounds=60),
    Variant(name="two writers, inside a commit", writers=2, rounds=60, inside=True),
    Variant(name="four writers, at random moments", writers=4, rounds=50),
)


@dataclass
class Outcome:
    variant: str
    inside: bool  # a commit is what the kills were meant for
    rounds: int = 0
    rows: int = 0  # acknowledged
    labels: int = 0
    lost: int = 0  # acknowledged and not in the table; of rows and labels
    doubled: int = 0  # more than once in the table
    waiting: int = 0  # segments left in the spool by a kill
    stored_already: int = 0  # of them, those whose rows were in the table: killed after a commit
    orphans: int = 0  # files that no commit names: killed before one
    left: list[str] = field(default_factory=list)  # files in the spool at the end


@dataclass(frozen=True)
class Killing:
    """One folder with a log in it, and the writers that are killed there."""

    folder: Path
    variant: Variant
    moments: random.Random

    @property
    def writers(self) -> list[str]:
        return [f"writer-{number}" for number in range(self.variant.writers)]

    def spool(self, writer: str) -> Path:
        return self.folder / "spool" / journal_load.MODEL / writer

    def round(self, number: int) -> list[Path]:
        """Start all writers, kill each; the files of what they acknowledged."""
        said = [self.folder / f"{writer}-{number}.txt" for writer in self.writers]
        running = [
            self._start(writer, file) for writer, file in zip(self.writers, said, strict=True)
        ]
        try:
            for process, file in zip(running, said, strict=True):
                _wait_for_first(process, file)
            for process in self.moments.sample(running, len(running)):
                self._wait()
                process.kill()
        finally:
            for process in running:
                process.kill()
                process.wait()
        return said

    def _start(self, writer: str, said: Path) -> subprocess.Popen[bytes]:
        command = python("-m", "bench.journal_load", str(self.folder), writer)
        with said.open("wb") as output, (self.folder / "errors.log").open("ab") as errors:
            return subprocess.Popen(
                command,
                env=environment(PYTHONPATH=str(ROOT)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )

    def _wait(self) -> None:
        time.sleep(self.moments.uniform(0, LONGEST / self.variant.writers))
        if not self.variant.inside:
            return
        place = Path(_table(self.folder, self.moments.choice(segments.KINDS)).url)
        spools = [self.spool(writer) for writer in self.writers]
        folders, what = self.moments.choice(
            [
                ([file for file in place.glob("model=*/date=*") if file.is_dir()], CREATED),
                (list(place.glob("_delta_log")), CREATED),
                (spools, DELETED),
            ]
        )
        with watched(folders or spools, what if folders else DELETED) as handle:
            happened(handle, 2.0)
        time.sleep(self.moments.choice([0, 0, 0.0005, 0.002, 0.005]))


def others() -> list[str]:
    return []


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    variants = [replace(each, rounds=2) if options.quick else each for each in VARIANTS]
    steps.expect(sum(variant.rounds for variant in variants))
    outcomes = [_run(variant, steps, folder / str(at)) for at, variant in enumerate(variants)]
    wrong = [each for each in outcomes if each.lost or each.doubled or each.left]
    if wrong:
        raise SystemExit("\n".join(["What was promised does not hold:", *map(str, wrong)]))
    missed = [each for each in outcomes if each.inside and not each.stored_already + each.orphans]
    if missed and not options.quick:
        raise SystemExit("\n".join(["No kill fell into a commit:", *map(str, missed)]))
    return Findings(
        title="Kill -9, and what is in the tables",
        setup=(
            "Processes append rows (1 to 20 at a time, durability spool) and labels as fast as the "
            "log takes them, with a commit every 50 ms; each is killed within half a second of its "
            "first row, and started again on the same spool in the next round. Inside a commit: "
            "at the moment a data file or an entry of the log appears, or a file of the spool "
            "goes, or up to 5 ms later. At the end the tables' files are read for every id that "
            "was acknowledged."
        ),
        tables=[_table_of(outcomes)],
        notes=[
            "Stored already: segments found in the spool after a kill whose rows a commit had put "
            "into the table. Not committed: data files that a kill left without a commit. Neither "
            "may be counted twice, or be missed."
        ],
        figures={"outcomes": [asdict(each) for each in outcomes]},
    )


def _run(variant: Variant, steps: Steps, folder: Path) -> Outcome:
    folder.mkdir()
    killing = Killing(folder, variant, random.Random(variant.name))
    outcome = Outcome(variant.name, variant.inside)
    rows: set[str] = set()
    labels: set[str] = set()
    for number in range(variant.rounds):
        steps.tell(f"{variant.name}: round {number + 1}/{variant.rounds}")
        for said in killing.round(number):
            rows |= _acknowledged(said, "row")
            labels |= _acknowledged(said, "label")
            said.unlink()
        _count_left(killing, outcome)
        outcome.rounds += 1
        steps.done()
    for writer in killing.writers:
        journal_load.open_writer(folder, writer).close()
    outcome.rows, outcome.labels = len(rows), len(labels)
    for name, given in (("predictions", rows), ("labels", labels)):
        _compare(_table(folder, name), given, outcome)
    outcome.left = [str(file) for file in folder.rglob("*.arrows")]
    return outcome


def _compare(table: TableRef, given: set[str], outcome: Outcome) -> None:
    handle = tables.open_table(table)
    files = [] if handle is None else [Path(uri) for uri in handle.file_uris()]
    found: Counter[str] = Counter()
    for file in files:
        found.update(pq.read_table(file, columns=["prediction_id"])["prediction_id"].to_pylist())
    outcome.lost += len(given - found.keys())
    outcome.doubled += sum(count > 1 for count in found.values())
    outcome.orphans += len(set(Path(table.url).rglob("part-*.parquet")) - set(files))


def _count_left(killing: Killing, outcome: Outcome) -> None:
    for writer in killing.writers:
        waiting = [segments.parse(file) for file in killing.spool(writer).glob("*.arrows")]
        taken = {
            kind: commits.committed(_table(killing.folder, kind), writer) for kind in segments.KINDS
        }
        outcome.waiting += len(waiting)
        outcome.stored_already += sum(
            named is not None and named[0] <= taken[named[1]] for named in waiting
        )


def _table(folder: Path, name: str) -> TableRef:
    url = journal_load.url_of(folder)
    if name == "labels":
        return tables.labels(url, journal_load.MODEL)
    return tables.predictions(url, journal_load.MODEL, Task.CLASSIFICATION)


def _acknowledged(file: Path, kind: str) -> set[str]:
    whole = file.read_text().rpartition("\n")[0].splitlines()  # the last line may be torn
    return {line.partition(" ")[2] for line in whole if line.startswith(kind)}


def _wait_for_first(process: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while not said.stat().st_size:
        if process.poll() is not None or time.monotonic() > deadline:
            errors = (said.parent / "errors.log").read_text()[-2000:]
            raise SystemExit(f"a writer did not start:\n{errors}")
        time.sleep(0.002)


def _table_of(outcomes: Sequence[Outcome]) -> Table:
    return Table(
        title="Acknowledged rows and labels, and what of them is not there once",
        columns=[
            "killed",
            "rounds",
            "rows",
            "labels",
            "lost",
            "doubled",
            "segments left",
            "stored already",
            "not committed",
        ],
        rows=[
            [each.variant]
            + [
                f"{number:,}"
                for number in (
                    each.rounds,
                    each.rows,
                    each.labels,
                    each.lost,
                    each.doubled,
                    each.waiting,
                    each.stored_already,
                    each.orphans,
                )
            ]
            for each in outcomes
        ],
    )
