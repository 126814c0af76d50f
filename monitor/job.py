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

    began = time.perf_counter()
    journal = Journal(settings.journal_path, job.window.model, job.spec.task)
    window = job.window
    # A run that was killed after its quarantine must see the rows it had put aside.
    journal.release(job.check_id, now=clock())
    rows = journal.window(
        window.start, window.end, job.spec.names, versions=window.versions
    ).to_pandas()
    report = settings.reports_path / job.check_id
    outcome = assess(
        Subject(
            check_id=job.check_id,
            window=window,
            version=job.spec.version,
            task=job.spec.task,
            features=job.spec.features,
            baseline_error=job.baseline_error,
            baseline_rows=job.baseline_rows,
        ),
        # Paths may be relative to the home folder, as the state database keeps them.
        training=_reference(settings.home / job.training_reference),
        production=_reference(settings.home / job.reference) if job.reference else None,
        current=rows,
        settings=settings.monitor,
        report=report,
    )
    verdict = outcome.verdict
    if outcome.bad.any():
        _quarantine(journal, rows[outcome.bad], verdict.reason, job.check_id, clock())
    if verdict.rebased:
        to = settings.home / job.rebase_to
        _write_reference(rows[~outcome.bad], to, job.spec.names, job.check_id)
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


def _quarantine(
    journal: Journal, rows: pd.DataFrame, reason: str, check_id: str, now: datetime
) -> None:
    added = journal.quarantine(rows[columns.PREDICTION_ID].tolist(), reason, key=check_id, now=now)
    log.info("%d rows put into quarantine by check %s", added, check_id)


def _write_reference(rows: pd.DataFrame, path: Path, names: Sequence[str], check_id: str) -> None:
    """All of it or nothing; the features and the version's own predictions."""
    from monitor.frames import generator, sampled

    kept = sampled(rows, REFERENCE_ROWS, generator(check_id))[[*names, columns.PREDICTION]]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    kept.to_parquet(partial, index=False)
    partial.replace(path)


def prune(reports: Path, keep: int) -> None:
    """Only the newest reports stay; folders of another kind are left alone."""
    found = [folder for folder in reports.iterdir() if (folder / "snapshot.json").exists()]
    newest = sorted(found, key=lambda folder: folder.stat().st_mtime_ns, reverse=True)
    for folder in newest[max(1, keep) :]:
        shutil.rmtree(folder, ignore_errors=True)
