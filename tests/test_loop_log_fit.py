"""A version whose rows the log could not hold does not come to serve by hand."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path

import project_kit as kit
import pytest
from click.testing import CliRunner, Result
from journal_kit import column_rows

from homeostat import events as types
from homeostat.errors import NotReady
from homeostat.journal.writer import JournalWriter
from homeostat.records import (
    Action,
    Decision,
    Feature,
    FeatureKind,
    GateOutcome,
    GateReport,
    ModelSpec,
    Stage,
    Task,
    VersionRef,
    to_json,
)
from homeostat.registry import cache
from homeostat.settings import Settings, load
from homeostat.state import events, rollouts, runs
from loop import deciding
from loop.cli import cli
from loop.commands.common import state_of
from loop.log_fit import require_fit
from loop.machine import Machine
from loop.running import open_context
from retrain import promotion

NOW = datetime(2026, 5, 4, tzinfo=UTC)
FITS, MISFITS = (VersionRef(version=version, digest=version * 64) for version in ("1", "2"))


def cached(settings: Settings, ref: VersionRef, size: FeatureKind) -> None:
    """What the registry leaves of a version it fetched, as far as is read here."""
    entry = cache.entry_path(settings.cache_path, settings.model.name, ref.version)
    entry.mkdir(parents=True)
    more = (Feature(name="colour", kind=FeatureKind.CATEGORY),)
    spec = ModelSpec(
        model=settings.model.name,
        version=ref.version,
        runtime="pyfunc",
        task=Task.CLASSIFICATION,
        features=(Feature(name="size", kind=size), *more),
    )
    (entry / cache.SPEC_FILE).write_bytes(to_json(spec))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A log of numbers, a version that takes numbers and one that takes text."""
    found = load(kit.make_project(tmp_path / "cancer"), {})
    writer = JournalWriter(
        url=found.journal_path,
        spool=found.spool_path,
        model=found.model.name,
        task=Task.CLASSIFICATION,
        writer_id="test",
        durability="spool",
        commit_every=timedelta(hours=1),
        commit_bytes=10**8,
        clock=lambda: NOW,
    )
    writer.start()
    writer.append(column_rows(["a"], {"size": [1.0]}, NOW))
    writer.close()
    cached(found, FITS, FeatureKind.NUMBER)
    cached(found, MISFITS, FeatureKind.CATEGORY)
    return found


def proposed(settings: Settings, candidate: VersionRef) -> None:
    """A run whose candidate passed its gate and waits for a person."""
    model = settings.model.name
    decision = Decision(
        decision_id=f"d{candidate.version}",
        model=model,
        action=Action.RETRAIN,
        reason="",
        created_at=NOW,
    )
    report = GateReport(
        outcome=GateOutcome.PASS,
        reason="better",
        candidate=candidate.version,
        champion=None,
        metric="accuracy",
        candidate_test=0.9,
        champion_test=None,
        candidate_holdout=None,
        champion_holdout=None,
        test_rows=100,
        contradicted_rows=0,
        holdout_rows=0,
    )
    with state_of(settings) as state, state.begin() as tx:
        runs.decide(tx, decision)
        run = deciding.start_run(tx, decision, NOW, train_until=None, candidate=candidate)
        runs.save_gate(tx, run.run_id, report)
        rollouts.add_version(tx, model, candidate, run.run_id, NOW)
        runs.advance(tx, run, NOW, stage=Stage.PROPOSED)


def promote(settings: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["-p", str(settings.project), "promote", *arguments])


def champion(settings: Settings) -> str | None:
    with state_of(settings) as state, state.begin() as tx:
        found = rollouts.current(tx, settings.model.name)
    return found.champion.version if found else None


@pytest.mark.parametrize("named", [(), ("2",)])
def test_a_person_is_told_which_columns_do_not_fit(
    settings: Settings, named: tuple[str, ...]
) -> None:
    """The candidate that waits and a version by its number; with --force it serves all the same."""
    proposed(settings, MISFITS)
    refused = promote(settings, *named)
    assert isinstance(refused.exception, NotReady)
    assert "input_size: numbers in the log, text in the version" in str(refused.exception)
    assert champion(settings) is None
    assert promote(settings, *named, "--force").exit_code == 0
    assert champion(settings) == "2"


def test_a_version_with_one_more_feature_is_promoted(settings: Settings) -> None:
    """Its new column is appended to the log when its first rows come."""
    proposed(settings, FITS)
    assert promote(settings).exit_code == 0
    assert champion(settings) == "1"


def test_settings_that_changed_under_the_version_that_serves_are_told(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """When the loop starts, once: an error with what to do, and an event for people."""
    with state_of(settings) as state, state.begin() as tx:
        rollouts.add_version(tx, settings.model.name, FITS, None, NOW)
        promotion.promote(
            tx, settings.model.name, FITS, run_id=None, reason="", actor="ada", now=NOW
        )
    hashing = replace(settings.journal, hash=("size",))
    for journal, expected in ((settings.journal, 0), (hashing, 1), (hashing, 2)):
        changed = replace(settings, journal=journal)
        context = replace(open_context(changed, os.environ, preload=False), clock=lambda: NOW)
        machine = Machine(context)
        try:
            for _ in range(2):
                machine.tick()
            with context.state.begin() as tx:
                told = [e for e in events.newest(tx, context.model) if e.type == types.LOG_MISFIT]
        finally:
            machine.close()
            context.state.close()
        assert len(told) == expected
    assert told[0].data["version"] == "1"
    assert "take size out of [journal] hash" in told[0].data["reason"]
    assert "The version that serves is not logged" in caplog.text
    assert any(fnmatch(types.LOG_MISFIT, pattern) for pattern in types.FOR_PEOPLE)


def test_what_cannot_be_asked_stops_nobody(settings: Settings) -> None:
    """A version that was not fetched here, a log that is away: its gate has asked."""
    require_fit(settings, VersionRef(version="9", digest=""))
    away = settings.home / "away"
    away.write_text("no folder")
    journal = replace(settings.journal, path=os.fspath(away))
    require_fit(replace(settings, journal=journal), MISFITS)
