"""Who serves: the rollout record is published for servers and mirrored to MLflow's aliases.

The record in the state database is the truth. What is published and mirrored is brought in line
with it at every tick, so that neither a crash in between nor an absence of MLflow leaves a half.
"""

from __future__ import annotations

import logging
from datetime import datetime

from homeostat.errors import Conflict, HomeostatError, NotReady
from homeostat.records import Rollout
from homeostat.registry.feature_names import feature_names
from homeostat.state import rollouts
from loop import retrain_jobs
from loop.context import Context
from loop.log_fit import require_fit, tell_refused
from loop.retrain_jobs import measured_folder
from loop.status import trial_words
from retrain import promotion, publish

log = logging.getLogger(__name__)


def publish_rollout(context: Context) -> Rollout | None:
    """Write the rollout file servers follow, where it is not the newest epoch."""
    with context.state.begin() as tx:
        rollout = rollouts.current(tx, context.model)
    if rollout is not None and publish.publish(context.settings.rollout_path, rollout):
        log.info("Version %s serves (epoch %d).", rollout.champion.version, rollout.epoch)
        if rollout.trial is not None:
            log.info("Beside it is %s.", trial_words(rollout.trial))
    return rollout


def mirror_aliases(context: Context, now: datetime) -> None:
    """Bring MLflow's aliases in line; take one moved by hand as that person's promotion."""
    with context.state.begin() as tx:
        rollout = rollouts.current(tx, context.model)
        last = rollouts.last_mirrored(tx, context.model)
    pointed = context.reach("mlflow", context.registry.aliases).get("champion")
    ours = {r.champion.version for r in (rollout, last) if r is not None}
    if pointed is not None and pointed not in ours:
        _adopt(context, pointed, rollout.epoch if rollout else 0, now)
        return
    if rollout is not None and rollout != last:
        context.reach("mlflow", lambda: context.registry.mirror(rollout, last))
        with context.state.begin() as tx:
            rollouts.mark_mirrored(tx, context.model, rollout.epoch)
    elif rollout is not None and pointed != rollout.champion.version:
        # Moved back to what it was, or deleted: the one is a wish, the other is mended.
        if pointed is None:
            context.reach("mlflow", lambda: context.registry.mirror(rollout, last))
        else:
            _adopt(context, pointed, rollout.epoch, now)


def _adopt(context: Context, version: str, seen: int, now: datetime) -> None:
    names = feature_names(context.settings)
    ref = context.reach("mlflow", lambda: context.registry.fetch(version, feature_names=names))
    try:
        require_fit(context.settings, ref)
    except NotReady as error:
        tell_refused(context, ref, str(error), now)
        raise
    try:
        with context.state.begin() as tx:
            rollouts.add_version(tx, context.model, ref, None, now)
            promotion.adopt(tx, context.model, ref, seen=seen, now=now)
    except Conflict:
        return
    log.warning("The alias champion was moved to version %s by hand: it serves now.", version)


def measure_adopted(context: Context, now: datetime) -> None:
    """A version we never gated has no reference and promises no error: find out both."""
    with context.state.begin() as tx:
        rollout = rollouts.current(tx, context.model)
        if rollout is None:
            return
        champion = rollout.champion
        if "training" in rollouts.references_of(tx, context.model, champion.version):
            return
    try:
        report = retrain_jobs.measure(context, champion)
    except HomeostatError as error:
        retrain_jobs.forget_measurement(context, champion)
        raise NotReady(
            f"version {champion.version} serves and cannot be checked, because nothing is known "
            f"to compare it with: {error}"
        ) from error
    if report is None:
        return
    with context.state.begin() as tx:
        retrain_jobs.keep_baseline(tx, context, report, measured_folder(context, champion), now)
    log.info("Version %s is measured; checks begin.", champion.version)
