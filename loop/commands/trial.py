"""homeostat trial"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from homeostat.records import Rollout, Trial, TrialKind, VersionRef
from homeostat.state import rollouts
from loop.clock import utc_now
from loop.commands.common import actor, say, settings_of, state_of
from loop.server_door import about_model
from loop.status import trial_words
from loop.trying import require_fit_for_trial
from retrain import publish, trials

FIRST_SHARE = 0.1


@click.group()
def command() -> None:
    """Try a version beside the one that serves.

    One at a time. A promotion, a rollback, or an alias moved in MLflow ends it.
    """


@command.command()
@click.argument("version")
@click.option(
    "--as",
    "kind",
    type=click.Choice([kind.value for kind in TrialKind]),
    required=True,
    help="shadow answers copies, to nobody; canary and ab answer their share of the requests.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    help="Of the requests; a key stays with its version while it holds.  [default: 0.1; of the "
    "version on trial, as it is, unless a shadow is to answer callers now]",
)
@click.option("--reason", default="tried by a person", help="For the record.")
@click.option("--force", is_flag=True, help="Even a version that did not pass its gate.")
@click.pass_obj
def start(
    project: Path, version: str, kind: str, share: float | None, reason: str, force: bool
) -> None:
    """Put VERSION on trial, or change kind and share of the one that is.

    It has to take and give what the champion does. A canary and one side of an A/B test must have
    passed the gate, a shadow need not. Works with the loop away, and with MLflow away where the
    version is in the cache.
    """
    settings = settings_of(project)
    with state_of(settings) as state:
        ref, seen = require_fit_for_trial(settings, state, version, TrialKind(kind), force=force)
        with state.begin() as tx:
            current = rollouts.current(tx, settings.model.name)
            trial = _trial(ref, TrialKind(kind), share, current.trial if current else None)
            rollout = trials.start(
                tx,
                settings.model.name,
                trial,
                seen=seen,
                reason=reason,
                actor=actor(),
                now=utc_now(),
            )
    publish.publish(settings.rollout_path, rollout)
    champion = rollout.champion.version
    say(f"{trial_words(trial)} beside version {champion} (epoch {rollout.epoch})")


def _trial(ref: VersionRef, kind: TrialKind, share: float | None, before: Trial | None) -> Trial:
    """Without a share it keeps the one it has. That of a shadow was of copies: it may be all of
    them, and is not what callers are to get."""
    if share is None:
        share = FIRST_SHARE
        if before is not None and before.version.version == ref.version:
            to_callers = before.kind is TrialKind.SHADOW and kind is not TrialKind.SHADOW
            share = FIRST_SHARE if to_callers else before.share
    try:
        return Trial(version=ref, kind=kind, share=share)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@command.command()
@click.option("--reason", default="ended by a person", help="For the record.")
@click.pass_obj
def stop(project: Path, reason: str) -> None:
    """End the trial: the champion answers everything. Works with the loop and MLflow away."""
    settings = settings_of(project)
    with state_of(settings) as state, state.begin() as tx:
        rollout = trials.stop(tx, settings.model.name, reason=reason, actor=actor(), now=utc_now())
    publish.publish(settings.rollout_path, rollout)
    say(f"the trial is over: version {rollout.champion.version} answers everything")


@command.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def status(project: Path, as_json: bool) -> None:
    """What is on trial, and what the server says of it."""
    settings = settings_of(project)
    with state_of(settings) as state, state.begin() as tx:
        rollout = rollouts.current(tx, settings.model.name)
    server = about_model(settings)
    if as_json:
        trial = rollout.trial if rollout else None
        found = server["trial"] if server else None
        click.echo(msgspec.json.encode({"trial": trial, "rollout": rollout, "server": found}))
        return
    if rollout is None or rollout.trial is None:
        say("no version is on trial")
        return
    say(f"{trial_words(rollout.trial)} beside version {rollout.champion.version}")
    say(f"so since {rollout.created_at:%F %T} UTC, by {rollout.actor}: {rollout.reason}")
    say(_at_server(rollout, rollout.trial, server))


def _at_server(rollout: Rollout, trial: Trial, server: dict[str, Any] | None) -> str:
    if server is None:
        return "no server of this project answers here, or it asks for a key"
    found = server["trial"]
    if server["epoch"] < rollout.epoch or found is None:
        return f"the server is at epoch {server['epoch']} still, and goes to {rollout.epoch}"
    if found["problem"]:
        return f"the server: {found['problem']}"
    loaded = found["loaded"]
    if loaded is None:
        return f"the server loads version {trial.version.version}"
    breaker = (
        "" if loaded["breaker"] == "closed" else f"; its circuit breaker is {loaded['breaker']}"
    )
    since = datetime.fromisoformat(loaded["since"])
    return f"the server has it in memory since {since:%F %T} UTC{breaker}"
