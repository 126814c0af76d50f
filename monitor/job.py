"""The work of `python -m monitor check`: journal and references in, verdict out."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from homeostat import columns
from homeostat.errors import NotReady
from homeostat.jobs import CheckJob, CheckResult
from homeostat.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from homeostat.journal.reader import Journal
    from monitor.inputs import Inputs

log = logging.getLogger(__name__)

REFERENCE_ROWS = 20_000


def check(job: CheckJob, settings: Settings, clock: Callable[[], datetime]) -> CheckResult:
    """One check of the champion; run again, it gives the same verdict and leaves the same behind.

    The state of the journal must be the same, too: rows that came meanwhile are judged.
    """
    # Imported here: the process that preloads Evidently decides when, and a window without rows
    # should cost neither.
    from homeostat.journal.reader import Journal
    from monitor.assessment import Subject, assess
    from monitor.inputs import inputs_of

    began = time.perf_counter()
    journal = Journal(settings.journal_path, job.window.model, job.spec.task)
    window = job.window
    # A run that was killed after its quarantine must see the rows it had put aside.
    journal.release(job.check_id, now=clock())
    inputs = inputs_of(job.spec, settings.journal)
    seen = inputs.seen(journal, window)
    rows = seen.rows
    report = settings.reports_path / job.check_id
    outcome = assess(
        Subject(
            check_id=job.check_id,
            window=window,
            version=job.spec.version,
            task=job.spec.task,
            features=inputs.features,
            unseen="; ".join(note for note in (inputs.note, seen.note) if note),
            baseline_error=job.baseline_error,
            baseline_rows=job.baseline_rows,
        ),
        # Paths may be relative to the home folder, as the state database keeps them.
        training=inputs.of(_reference(settings.home / job.training_reference)),
        production=_production(job, settings, inputs),
        current=rows,
        settings=settings.monitor,
        report=report,
    )
    verdict = outcome.verdict
    if outcome.bad.any():
        _quarantine(journal, rows[outcome.bad], verdict.reason, job.check_id, clock())
    if verdict.rebased:
        to = settings.home / job.rebase_to
        names = [feature.name for feature in inputs.features]
        _write_reference(rows[~outcome.bad], to, names, job.check_id)
    if verdict.report is not None:
        verdict = replace(verdict, report=report.relative_to(settings.home).as_posix())
        prune(settings.reports_path, settings.monitor.keep_reports)
    return CheckResult(verdict=replace(verdict, seconds=time.perf_counter() - began))


def _reference(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise NotReady(
            f"the reference {path} is gone; promote the version again to write it anew"
        ) from None


def _production(job: CheckJob, settings: Settings, inputs: Inputs) -> pd.DataFrame | None:
    """None where there is none yet, or where it was written when the log held other inputs: the
    next good window takes its place."""
    if job.reference is None:
        return None
    found = inputs.of(_reference(settings.home / job.reference))
    if inputs.fit(found):
        return found
    log.info("The reference %s has other columns than the log now; a new one is due", job.reference)
    return None


def _quarantine(
    journal: Journal, rows: pd.DataFrame, reason: str, check_id: str, now: datetime
) -> None:
    added = journal.quarantine(rows[columns.PREDICTION_ID].tolist(), reason, key=check_id, now=now)
    log.info("%d rows put into quarantine by check %s", added, check_id)


def _write_reference(rows: pd.DataFrame, path: Path, names: Sequence[str], check_id: str) -> None:
    """All of it or nothing; what was compared and the version's own predictions, and beside it
    which rows they are."""
    import pyarrow as pa

    from homeostat.journal.forgetting.traces import write_traced
    from monitor.frames import generator, sampled

    kept = sampled(rows, REFERENCE_ROWS, generator(check_id))
    table = pa.Table.from_pandas(kept[[*names, columns.PREDICTION]], preserve_index=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_traced(path, table, kept[columns.PREDICTION_ID].tolist(), _texts(kept[columns.KEY]))


def _texts(values: pd.Series) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in values.tolist()]


def prune(reports: Path, keep: int) -> None:
    """Only the newest reports stay; folders of another kind are left alone."""
    found = [folder for folder in reports.iterdir() if (folder / "snapshot.json").exists()]
    newest = sorted(found, key=lambda folder: folder.stat().st_mtime_ns, reverse=True)
    for folder in newest[max(1, keep) :]:
        shutil.rmtree(folder, ignore_errors=True)
