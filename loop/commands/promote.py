"""homeostat promote"""

from __future__ import annotations

from pathlib import Path

import click

from homeostat.errors import NotReady
from homeostat.records import GateOutcome, Rollout, Stage, VersionRef
from homeostat.settings import Settings
from homeostat.state import rollouts, runs
from homeostat.state.store import State
from loop.clock import utc_now
from loop.commands.common import actor, settings_of, state_of, terminal
from loop.log_fit import require_fit
from retrain import promotion, publish


@click.command()
@click.argument("version", required=False)
@click.option("--reason", default="promoted by a person", help="For the record.")
@click.option("--force", is_flag=True, help="Even a version that did not pass its gate.")
@click.pass_obj
def command(project: Path, version: str | None, reason: str, force: bool) -> None:
    """Promote the version that waits for a person, or VERSION.

    Works with the loop and MLflow away; the alias follows when they are back.
    """
    settings = settings_of(project)
    with state_of(settings) as state:
        rollout = _promote(settings, state, version, reason, force)
    publish.publish(settings.rollout_path, rollout)
    terminal.print(f"version {rollout.champion.version} serves (epoch {rollout.epoch})")


def _promote(
    settings: Settings, state: State, version: str | None, reason: str, force: bool
) -> Rollout:
    now, model = utc_now(), settings.model.name
    with state.begin() as tx:
        waiting = runs.active(tx, model)
        if waiting is not None and waiting.stage is not Stage.PROPOSED:
            waiting = None
        if version is None and waiting is None:
            raise NotReady("no version waits for a person; name one: `homeostat promote VERSION`")
        if (
            waiting is not None
            and waiting.candidate
            and version
            in (
                None,
                waiting.candidate.version,
            )
        ):
            report = runs.gate_of(tx, waiting.run_id)
            now_serving = rollouts.current(tx, model)
            champion = now_serving.champion.version if now_serving else None
            if report is not None and report.champion != champion and not force:
                raise NotReady(
                    f"version {waiting.candidate.version} met version {report.champion} at its "
                    f"gate, and version {champion} serves now: `homeostat reject` and "
                    f"`homeostat gate {waiting.candidate.version}` (or --force)"
                )
            if not force:
                require_fit(settings, waiting.candidate)
            rollout = promotion.promote(
                tx,
                model,
                waiting.candidate,
                run_id=waiting.run_id,
                reason=reason,
                actor=actor(),
                now=now,
            )
            runs.advance(tx, waiting, now, stage=Stage.PROMOTED)
            return rollout
        assert version is not None
        known = rollouts.known(tx, model, version)
        if known is None:
            raise NotReady(
                f"version {version} is not known here; put it to the gate first: "
                f"`homeostat gate {version}`"
            )
        report = runs.gate_of(tx, known.run_id) if known.run_id else None
        if not force and (report is None or report.outcome is not GateOutcome.PASS):
            why = report.reason if report else "it met none"
            raise NotReady(
                f"version {version} did not pass its gate ({why}); --force promotes it anyway"
            )
        if not force:
            require_fit(settings, known.ref)
        return promotion.promote(
            tx,
            model,
            VersionRef(version=version, digest=known.ref.digest),
            run_id=None,
            reason=reason,
            actor=actor(),
            now=now,
        )
