"""What ended runs and checks leave on the disk: removed once nothing can ask for it again."""

from __future__ import annotations

import logging
import shutil
from datetime import timedelta

from homeostat.state import checks, rollouts, runs
from loop import batch_runs, upkeeping
from loop.context import Context

log = logging.getLogger(__name__)

EVERY = timedelta(minutes=10)
KEPT_RUNS = 10  # newest runs whose data and logs stay for people to look at
KEPT_ROLLOUTS = 5  # newest versions that served: a rollback to one finds its reference


def tidy(context: Context) -> int:
    """Remove job and run folders that no state refers to any more; how many were removed."""
    with context.state.begin() as tx:
        kept = {run.run_id for run in runs.newest(tx, context.model, KEPT_RUNS)}
        active = runs.active(tx, context.model)
        kept |= {active.run_id} if active else set()
        kept.add(upkeeping.JOB)
        kept |= {batch_runs.job_name(section) for section in context.settings.score}
        kept |= {f"check-{check.check_id}" for check in checks.running(tx, context.model)}
        current = rollouts.current(tx, context.model)
        named = list(current.versions) if current else []  # one on trial among them
        for rollout in rollouts.newest_champions(tx, context.model, KEPT_ROLLOUTS):
            named += filter(None, (rollout.champion, rollout.previous))
        for ref in named:
            known = rollouts.known(tx, context.model, ref.version)
            kept |= {known.run_id} if known and known.run_id else set()
            kept.add(f"measure-{ref.version}")
    now = context.clock()
    removed = sum(batch_runs.tidy(section, now) for section in context.settings.score)
    for folder in (context.settings.jobs_path, context.settings.runs_path):
        for entry in folder.iterdir():
            if not any(entry.name == name or entry.name.startswith(f"{name}-") for name in kept):
                if folder == context.settings.runs_path:
                    relative = entry.relative_to(context.settings.home)
                    with context.state.begin() as tx:
                        # Promoted again, such a version is measured again.
                        rollouts.forget_references(tx, context.model, str(relative))
                shutil.rmtree(entry, ignore_errors=True)
                removed += 1
    if removed:
        log.info("Removed %d folders of runs and checks that are over.", removed)
    return removed
