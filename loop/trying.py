"""What must hold before a version is put on trial: it is there, it can answer what the champion
answers, and it passed its gate where callers are to get its answers."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from homeostat.errors import NotReady
from homeostat.model_runtime.likeness import difference
from homeostat.records import (
    GateOutcome,
    GateReport,
    ModelSpec,
    Rollout,
    TrialKind,
    VersionRef,
)
from homeostat.registry.cache import entry_path, read_spec
from homeostat.registry.feature_names import feature_names
from homeostat.settings import Settings
from homeostat.state import rollouts, runs
from homeostat.state.store import State
from loop.log_fit import require_fit
from loop.scoring import in_cache


def require_fit_for_trial(
    settings: Settings, state: State, version: str, kind: TrialKind, *, force: bool
) -> tuple[VersionRef, int]:
    """The version, in the cache, and the epoch whose champion it is like. Raises NotReady, which
    says what is missing, RegistryUnavailable where it is not in the cache and MLflow is away.
    `force`: though it met no gate, or the log does not take its rows; not though it takes something
    else than the champion."""
    model = settings.model.name
    with state.begin() as tx:
        rollout = rollouts.current(tx, model)
        report = _gate_of(tx, model, version)
    if rollout is None:
        raise NotReady(
            f"no version of {model} serves that another could be tried beside: "
            "`homeostat promote` one first"
        )
    ref = _found(settings, version)
    _require_alike(settings, rollout, ref)
    if force:
        return ref, rollout.epoch
    require_fit(settings, ref)
    if kind is not TrialKind.SHADOW and (report is None or report.outcome is not GateOutcome.PASS):
        why = report.reason if report else "it met none"
        raise NotReady(
            f"version {version} did not pass its gate ({why}), and callers would get its answers: "
            f"`homeostat gate {version}`, `--as shadow`, or --force"
        )
    return ref, rollout.epoch


def _gate_of(tx: Connection, model: str, version: str) -> GateReport | None:
    """The newest one it met."""
    for run in runs.newest(tx, model, limit=1000):
        if run.candidate is not None and run.candidate.version == version:
            report = runs.gate_of(tx, run.run_id)
            if report is not None:
                return report
    return None


def _found(settings: Settings, version: str) -> VersionRef:
    if not version.isdecimal():
        raise NotReady(f'"{version}" is no version: MLflow numbers them, as 1, 2, 3')
    try:
        return in_cache(settings, version, None, lambda: feature_names(settings))
    except NotReady as error:
        raise NotReady(f"there is no version {version} of {settings.model.name}: {error}") from None


def _require_alike(settings: Settings, rollout: Rollout, ref: VersionRef) -> None:
    champion = rollout.champion
    in_cache(settings, champion.version, champion, lambda: feature_names(settings))
    one, other = _spec(settings, champion), _spec(settings, ref)
    if not (one.classes and other.classes):  # one of them names them when it is loaded
        one, other = replace(one, classes=()), replace(other, classes=())
    problem = difference(one, other)
    if problem is not None:
        raise NotReady(
            f"version {ref.version} cannot stand in for version {champion.version}: {problem}"
        )


def _spec(settings: Settings, ref: VersionRef) -> ModelSpec:
    """As it will be once it is loaded, as far as that is known before."""
    spec = read_spec(entry_path(settings.cache_path, settings.model.name, ref.version))
    if spec.task is not settings.model.task:
        raise NotReady(
            f"version {ref.version} is for {spec.task}, the project for {settings.model.task}"
        )
    return replace(spec, classes=settings.model.classes or spec.classes)
