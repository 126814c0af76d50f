"""The status page's doors: keys where there are any, and nothing but reports from the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import project_kit as kit
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from homeostat.auth import Keyring, Scope, add_key, new_key
from homeostat.key_watch import KeyWatch
from homeostat.records import Action, Decision, Rollout, Stage, Trial, TrialKind, VersionRef
from homeostat.settings import load
from homeostat.state import rollouts, runs
from loop import deciding, tidying
from loop.console.app import make_app
from loop.context import Context
from loop.running import open_context
from retrain import promotion, trials

NOW = datetime(2026, 5, 4, tzinfo=UTC)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    settings = load(kit.make_project(tmp_path / "cancer"), {})
    made = open_context(settings, os.environ, preload=False)
    yield made
    made.state.close()


def app_of(context: Context) -> FastAPI:
    return make_app(context, KeyWatch(context.settings.keys_path, Keyring()))


def test_without_keys_everything_answers(context: Context) -> None:
    """On loopback a new project needs none."""
    client = TestClient(app_of(context))
    assert client.get("/api/status").json()["model"] == "cancer"
    assert "No version serves yet" in client.get("/").text
    assert client.get("/health/live").status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/status", "/metrics", "/reports/abc/report.html"])
def test_with_keys_a_key_of_scope_admin_is_needed(context: Context, path: str) -> None:
    """A key for predictions is not enough to read what the model was asked."""
    admin, admin_key = new_key("ops", frozenset({Scope.ADMIN}))
    caller, caller_key = new_key("app", frozenset({Scope.PREDICT}))
    client = TestClient(app_of(context))
    assert client.get(path).status_code in (200, 404)
    for key in (admin_key, caller_key):  # made while it runs
        add_key(context.settings.keys_path, key)

    def status(token: str | None) -> int:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return int(client.get(path, headers=headers).status_code)

    assert status(None) == 401
    assert status(caller) == 403
    assert status(admin) in (200, 404)


@pytest.mark.parametrize(
    "path", ["/reports/..%2F..%2F/report.html", "/reports/x/..%2F..%2Fstate.db", "/reports/x/y.txt"]
)
def test_only_reports_are_read_from_the_disk(context: Context, path: str) -> None:
    """Whatever the path says."""
    (context.settings.home / "report.html").write_text("not for you")
    assert TestClient(app_of(context)).get(path).status_code == 404


def test_what_is_over_is_removed_and_what_serves_is_kept(context: Context) -> None:
    """Folders of old runs go; those of newest runs, of versions that may serve again and of one on
    trial stay."""
    made = []
    for number in range(tidying.KEPT_RUNS + 3):
        with context.state.begin() as tx:
            decision = Decision(
                decision_id=f"d{number}",
                model=context.model,
                action=Action.RETRAIN,
                reason="",
                created_at=NOW,
            )
            runs.decide(tx, decision)
            run = deciding.start_run(tx, decision, NOW.replace(hour=number), train_until=None)
            runs.advance(tx, run, NOW, stage=Stage.FAILED)
            ref = VersionRef(version=str(number), digest="x")
            rollouts.add_version(tx, context.model, ref, run.run_id, NOW)
        (context.settings.runs_path / run.run_id).mkdir()
        (context.settings.jobs_path / f"{run.run_id}-dataset").mkdir()
        made.append((run.run_id, ref))
    with context.state.begin() as tx:
        champion = made[0][1]
        rollouts.write(tx, Rollout(model=context.model, epoch=1, champion=champion, created_at=NOW))
        # tried again and again: no act of a trial takes the place of a version that served
        for share in range(1, 2 * tidying.KEPT_ROLLOUTS):
            trial = Trial(version=made[1][1], kind=TrialKind.SHADOW, share=share / 100)
            trials.start(tx, context.model, trial, seen=share, reason="", actor="ada", now=NOW)
    assert tidying.tidy(context) == 2, "two folders of the one run that is over"
    left = {folder.name for folder in context.settings.runs_path.iterdir()}
    assert left == {made[0][0], made[1][0], *(run_id for run_id, _ in made[3:])}
    assert tidying.tidy(context) == 0


def test_a_version_on_trial_is_shown(context: Context) -> None:
    """Beside the one that serves; the versions that served are told without it."""
    one, two = (VersionRef(version=number, digest=number) for number in ("1", "2"))
    trial = Trial(version=two, kind=TrialKind.CANARY, share=0.25)
    with context.state.begin() as tx:
        promotion.promote(tx, context.model, one, run_id=None, reason="", actor="ada", now=NOW)
        now = datetime.now(UTC)
        trials.start(tx, context.model, trial, seen=1, reason="", actor="ada", now=now)
    client = TestClient(app_of(context))
    page = client.get("/").text
    assert "canary, 25.0 % of the requests" in page
    assert "since 2026-05-04" in page
    found = client.get("/api/status").json()
    assert found["rollout"]["trial"]["version"]["version"] == "2"
    assert [each["epoch"] for each in found["rollouts"]] == [1]
