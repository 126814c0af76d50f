"""`homeostat trial`: a version beside the champion, begun, followed by the server, and ended."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from registry_fixtures import LoggedModels
from serving_kit import CLASSES, MODEL, Network, Server, add_version, make_project, running

from homeostat import events as types
from homeostat.errors import Conflict, HomeostatError, IntegrityError, NotReady, Unavailable
from homeostat.jobs import CheckJob
from homeostat.records import (
    Action,
    Decision,
    Event,
    FeatureKind,
    GateOutcome,
    GateReport,
    Rollout,
    Stage,
    Task,
    TrialKind,
    VersionRef,
    from_json,
    to_json,
)
from homeostat.registry.cache import SPEC_FILE, entry_path, read_spec
from homeostat.settings import Settings
from homeostat.state import events, rollouts, runs
from homeostat.state.store import State, open_state
from loop import checking, deciding, releasing
from loop.cli import cli
from loop.running import open_context
from retrain import promotion, publish
from serving.rules.routing import Role, route

PROJECT = """
[serving]
poll = "50ms"
[registry]
tracking_uri = "http://127.0.0.1:9"  # nobody answers there: MLflow is away
"""
BEGAN = datetime(2026, 5, 4, tzinfo=UTC)
ROWS = [[1.0, 2.0, 3.0, 4.0]]
KEYS = [f"user {number}" for number in range(60)]


class House:
    """A project whose version 1 serves since long ago; 2 and 3 are in the cache, 3 is known."""

    def __init__(self, folder: Path, text: str = PROJECT) -> None:
        self.settings = make_project(folder, text)
        self.versions = {number: add_version(self.settings, number) for number in (1, 2, 3)}
        self.state: State = open_state(self.settings.state_url)
        with self.state.begin() as tx:
            rollouts.add_version(tx, MODEL, self.versions[3], None, BEGAN)
            rollout = promotion.promote(
                tx, MODEL, self.versions[1], run_id=None, reason="first", actor="ada", now=BEGAN
            )
        publish.publish(self.settings.rollout_path, rollout)

    def order(self, *arguments: str) -> str:
        """A command, run to its end; its error is raised."""
        done = CliRunner().invoke(cli, ["--project", str(self.settings.project), *arguments])
        if isinstance(done.exception, HomeostatError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    def rollout(self) -> Rollout:
        with self.state.begin() as tx:
            found = rollouts.current(tx, MODEL)
        assert found is not None
        return found

    def told(self) -> list[Event]:
        """Oldest first."""
        with self.state.begin() as tx:
            return events.newest(tx, MODEL)[::-1]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "project")
    yield made
    made.state.close()


def by_key(server: Server) -> dict[str, str]:
    return {key: server.predict(ROWS, keys=[key]).json()["version"] for key in KEYS}


def expected(house: House) -> dict[str, str]:
    rollout = house.rollout()
    roles = {key: route(rollout, key, 0) for key in KEYS}
    return {key: "2" if role is Role.CHALLENGER else "1" for key, role in roles.items()}


def follows(house: House, server: Server) -> None:
    """Until the server serves the newest record, its trial loaded."""
    rollout = house.rollout()
    server.wait_for(lambda: server.about()["epoch"] == rollout.epoch)
    if rollout.trial is not None:
        server.wait_for(lambda: (server.about()["trial"] or {}).get("loaded"))


def test_the_server_answers_by_the_share_that_was_ordered(house: House) -> None:
    """A canary gets its share of the keys, more of them with a greater one; a shadow answers
    nobody; a promotion makes it the champion and ends the trial. MLflow and the loop are away."""
    with running(house.settings.project) as server:
        assert "no version is on trial" in house.order("trial", "status")
        said = house.order("trial", "start", "2", "--as", "canary", "--share", "0.3", "--force")
        assert "version 2 on trial (canary, 30.0% of the requests) beside version 1" in said
        follows(house, server)
        few = by_key(server)
        assert few == expected(house)
        assert {"1", "2"} == set(few.values())
        told = house.order("trial", "status")
        time_ = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
        assert re.search(f"so {time_}, by ", told)
        assert re.search(f"the server has it in memory {time_}\n", told)
        assert json.loads(house.order("trial", "status", "--json"))["server"]["share"] == 0.3

        house.order("trial", "start", "2", "--as", "ab", "--share", "0.7", "--force")
        follows(house, server)
        many = by_key(server)
        assert many == expected(house)
        assert {key for key in KEYS if few[key] == "2"} < {key for key in KEYS if many[key] == "2"}

        house.order("trial", "start", "2", "--as", "shadow", "--share", "1")
        follows(house, server)
        assert set(by_key(server).values()) == {"1"}
        shadowed = 'homeostat_role_rows_total{model="shapes",role="shadow",version="2"} '
        server.wait_for(lambda: shadowed in server.http.get("/metrics").text)

        house.order("trial", "stop")
        follows(house, server)
        assert server.about()["trial"] is None
        assert set(by_key(server).values()) == {"1"}

        house.order("trial", "start", "2", "--as", "canary", "--share", "0.5", "--force")
        follows(house, server)
        house.order("promote", "2", "--force")
        server.wait_for_version(2)
        assert server.about()["trial"] is None
        assert set(by_key(server).values()) == {"2"}
        assert server.predict(ROWS).json()["predictions"] == Network(2).expected(ROWS)[0]


def test_each_act_is_a_record_and_an_event(house: House) -> None:
    """One epoch each, written down with who and why; what is published is the newest record."""
    house.order("trial", "start", "2", "--as", "shadow", "--share", "1", "--reason", "to see it")
    house.order("trial", "start", "2", "--as", "canary", "--force")
    house.order("trial", "stop", "--reason", "seen")
    _, *told = house.told()
    kinds = [types.TRIAL_STARTED, types.TRIAL_CHANGED, types.TRIAL_ENDED]
    assert [event.type for event in told] == kinds
    what = [(e.data["version"], e.data["kind"], e.data["share"], e.data["epoch"]) for e in told]
    assert what == [("2", "shadow", 1.0, 2), ("2", "canary", 0.1, 3), ("2", "canary", 0.1, 4)]
    assert [told[0].data["reason"], told[2].data["reason"]] == ["to see it", "seen"]
    published = from_json(house.settings.rollout_path.read_bytes(), Rollout)
    assert published == house.rollout()
    assert published.trial is None


def test_the_share_stays_unless_given(house: House) -> None:
    """Of the version on trial. That of a shadow is one of copies: callers get a first share."""
    start = ("trial", "start", "2", "--force", "--as")
    for kind, share, now in (
        ("canary", ("--share", "0.5"), 0.5),
        ("ab", (), 0.5),
        ("shadow", (), 0.5),
        ("shadow", ("--share", "0.7"), 0.7),
        ("canary", (), 0.1),
    ):
        house.order(*start, kind, *share)
        trial = house.rollout().trial
        assert trial is not None
        assert (trial.kind, trial.share) == (kind, now)
    house.order(*start, "canary", "--share", "0.4")
    house.order("trial", "stop")
    house.order(*start, "canary")
    assert (trial := house.rollout().trial) is not None
    assert trial.share == 0.1


def test_the_champion_serves_on_as_it_did(house: House) -> None:
    """Since when it serves, and who served before it, are what they were: checks look at no
    shorter window, a rollback goes where it would have gone."""
    house.order("promote", "3", "--force")
    before = house.rollout()
    house.order("trial", "start", "2", "--as", "shadow")
    house.order("trial", "start", "2", "--as", "shadow", "--share", "0.5")
    during = house.rollout()
    assert (during.champion, during.previous) == (before.champion, before.previous)
    assert during.since == before.since
    assert during.created_at > before.created_at
    with house.state.begin() as tx:
        served = rollouts.newest_champions(tx, MODEL)
    assert [each.champion.version for each in served] == ["3", "1"]


def test_a_check_looks_at_no_shorter_window(house: House) -> None:
    """The champion has served all the while."""
    context = open_context(house.settings, os.environ, preload=False)
    reference = rollouts.Reference(kind="training", path="rows.parquet", created_at=BEGAN)
    with context.state.begin() as tx:
        rollouts.set_reference(tx, MODEL, "1", reference)
    house.order("trial", "start", "2", "--as", "shadow")
    checking.start_due(context, house.rollout().created_at)
    context.executor.close()
    [spec] = context.settings.jobs_path.glob("check-*/spec.json")
    window = from_json(spec.read_bytes(), CheckJob).window
    assert window.end - window.start == context.settings.monitor.window
    assert window.versions == ("1",)
    context.state.close()


def test_mlflow_follows(logged_models: LoggedModels, tmp_path: Path) -> None:
    """A version that is not in the cache is fetched; it is the challenger for as long as it is on
    trial. One of other features is refused though MLflow has it."""
    settings = logged_models.settings(tmp_path, model="tried-here", more='classes = ["a", "b"]')
    context = open_context(settings, os.environ, preload=False)
    registry, numbers = context.registry, []
    for tag in ("digits", "digits-one-row", "colours"):
        logged = registry.find_model(f"run-{tag}")
        assert logged is not None
        numbers.append(registry.register(logged, f"run-{tag}"))
    first, second, third = numbers
    champion = registry.fetch(first, feature_names=())
    with context.state.begin() as tx:
        promotion.promote(
            tx, "tried-here", champion, run_id=None, reason="", actor="ada", now=BEGAN
        )
    project = ["--project", str(tmp_path), "trial"]

    def mirrored(*order: str) -> dict[str, str]:
        CliRunner().invoke(cli, [*project, *order], catch_exceptions=False)
        releasing.mirror_aliases(context, BEGAN)
        return registry.aliases()

    assert mirrored("status") == {"champion": first}
    tried = {"champion": first, "challenger": second}
    assert mirrored("start", second, "--as", "shadow") == tried
    with pytest.raises(NotReady, match="it takes named columns, not tensors of 1 x 8 x 8"):
        mirrored("start", third, "--as", "shadow")
    assert mirrored("stop") == {"champion": first}
    context.state.close()


@pytest.mark.parametrize("act", [("rollback",), ("promote", "2", "--force")])
def test_another_champion_ends_the_trial_and_says_so(house: House, act: tuple[str, ...]) -> None:
    """It was compared with one that serves no more."""
    house.order("promote", "3", "--force")
    house.order("trial", "start", "2", "--as", "shadow")
    house.order(*act)
    assert house.rollout().trial is None
    ended = house.told()[-2:]
    assert types.TRIAL_ENDED in {event.type for event in ended}
    with pytest.raises(NotReady, match="no version of shapes is on trial"):
        house.order("trial", "stop")


def test_it_is_seen_where_people_look(house: House) -> None:
    """`homeostat status`, also for programs."""
    assert "on trial" not in house.order("status")
    house.order("trial", "start", "2", "--as", "canary", "--share", "0.25", "--force")
    shown = house.order("status")
    assert "beside it version 2 on trial (canary, 25.0% of the requests)" in shown
    assert types.TRIAL_STARTED in shown
    found = json.loads(house.order("status", "--json"))["rollout"]["trial"]
    assert (found["version"]["version"], found["kind"], found["share"]) == ("2", "canary", 0.25)


def test_one_at_a_time_and_not_the_champion(house: House) -> None:
    """Each refusal says what is so; nothing is written."""
    with pytest.raises(Conflict, match="version 1 of shapes is the champion"):
        house.order("trial", "start", "1", "--as", "shadow")
    house.order("trial", "start", "2", "--as", "shadow")
    with pytest.raises(Conflict, match="version 2 of shapes is on trial already"):
        house.order("trial", "start", "3", "--as", "shadow")
    with pytest.raises(Conflict, match="like that already"):
        house.order("trial", "start", "2", "--as", "shadow")
    assert house.rollout().epoch == 2


def test_a_version_that_is_not_there(tmp_path: Path) -> None:
    """Neither in the cache nor in MLflow; or not in the cache, with MLflow away."""
    house = House(tmp_path / "here", '[serving]\npoll = "50ms"\n')
    with pytest.raises(NotReady, match="there is no version 77 of shapes"):
        house.order("trial", "start", "77", "--as", "shadow")
    with pytest.raises(NotReady, match=r'"\.\./2" is no version'):
        house.order("trial", "start", "../2", "--as", "shadow")
    house.state.close()
    away = House(tmp_path / "away")
    with pytest.raises(Unavailable, match="MLflow"):
        away.order("trial", "start", "77", "--as", "shadow")
    assert away.rollout().epoch == 1
    away.state.close()


def test_nothing_serves_yet(tmp_path: Path) -> None:
    """A trial is beside a champion."""
    settings = make_project(tmp_path / "project", PROJECT)
    add_version(settings, 2)
    order = ["--project", str(settings.project), "trial", "start", "2", "--as", "shadow"]
    done = CliRunner().invoke(cli, order)
    assert isinstance(done.exception, NotReady)
    assert "serves that another could be tried beside" in str(done.exception)


def changed(settings: Settings, version: int, **changes: Any) -> None:
    """What the cache says that the version takes and gives."""
    entry = entry_path(settings.cache_path, MODEL, str(version))
    (entry / SPEC_FILE).write_bytes(to_json(replace(read_spec(entry), **changes)))


def test_a_version_that_takes_something_else(house: House) -> None:
    """The error names what: it could not answer what the champion answers. Not even by force."""
    features = read_spec(entry_path(house.settings.cache_path, MODEL, "1")).features
    colour = replace(features[0], name="colour")
    category = replace(features[0], kind=FeatureKind.CATEGORY)
    for changes, said in (
        ({"features": (*features[1:], colour)}, "also takes colour; it does not take width"),
        ({"features": (category, *features[1:])}, "width is a category, not a number"),
        ({"features": features[::-1]}, "the same features in another order"),
        ({"features": features, "tensor_shape": (4,)}, "it takes tensors of 4, not tensors of 2 x"),
        ({"tensor_shape": None}, "it takes named columns, not tensors of 2 x 2"),
        ({"tensor_shape": (2, 2), "tensor_dtype": "int64"}, "its tensor is of int64, not float32"),
        ({"tensor_dtype": "float32", "task": Task.REGRESSION}, "version 2 is for regression"),
    ):
        changed(house.settings, 2, **changes)
        with pytest.raises(NotReady, match=said):
            house.order("trial", "start", "2", "--as", "shadow", "--force")
    assert house.rollout().epoch == 1


def test_a_version_with_other_classes(tmp_path: Path) -> None:
    """As far as they are known before it is loaded; the project's own hold for all versions."""
    house = House(tmp_path / "project")
    text = (house.settings.project / "homeostat.toml").read_text()
    for version, names in ((1, CLASSES), (2, ("circle", "square", "moon"))):
        changed(house.settings, version, classes=names)
    house.order("trial", "start", "2", "--as", "shadow")
    house.order("trial", "stop")
    lines = [line for line in text.splitlines() if not line.startswith("classes")]
    (house.settings.project / "homeostat.toml").write_text("\n".join(lines))
    with pytest.raises(NotReady, match="its classes are circle, square, moon, not circle"):
        house.order("trial", "start", "2", "--as", "shadow")
    house.state.close()


def when_read(fifo: Path, reading: Future[str]) -> int:
    """A descriptor to write into, once somebody waits for what comes out."""
    while not reading.done():
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as nobody:
            if nobody.errno != errno.ENXIO:
                raise
            time.sleep(0.01)
    raise AssertionError(reading.result())


def test_another_champion_since_it_was_compared(house: House) -> None:
    """The loop promotes while the command still looks at the version: that was compared with a
    champion that serves no more, so nothing is written, and the error says what to do."""
    spec = entry_path(house.settings.cache_path, MODEL, "2") / SPEC_FILE
    kept = spec.rename(spec.with_name("kept"))
    os.mkfifo(spec)
    with ThreadPoolExecutor(1) as pool:
        order = pool.submit(house.order, "trial", "start", "2", "--as", "shadow")
        fifo = when_read(spec, order)
        with house.state.begin() as tx:
            promotion.promote(
                tx, MODEL, house.versions[3], run_id=None, reason="", actor="loop", now=BEGAN
            )
        told = kept.read_bytes()
        kept.replace(spec)  # for whoever reads it after this
        os.write(fifo, told)
        os.close(fifo)
        with pytest.raises(Conflict, match=r"meanwhile epoch 2 began \(version 3 serves, by loop"):
            order.result()
    assert house.rollout().trial is None
    assert house.rollout().epoch == 2
    house.order("trial", "start", "2", "--as", "shadow")
    assert house.rollout().trial is not None


def test_a_version_whose_files_were_changed(house: House) -> None:
    """Its digest is not the one that was first seen."""
    with house.state.begin() as tx:
        rollouts.add_version(tx, MODEL, VersionRef(version="2", digest="0" * 64), None, BEGAN)
    with pytest.raises(IntegrityError, match="was first seen with 000000000000"):
        house.order("trial", "start", "2", "--as", "shadow")


def gated(house: House, version: int, outcome: GateOutcome) -> None:
    """As after `homeostat gate VERSION`."""
    decision = Decision(
        decision_id=f"d{version}", model=MODEL, action=Action.PROBE, reason="", created_at=BEGAN
    )
    report = GateReport(
        outcome=outcome,
        reason="it is worse",
        candidate=str(version),
        champion="1",
        metric="accuracy",
        candidate_test=0.9,
        champion_test=0.8,
        candidate_holdout=None,
        champion_holdout=None,
        test_rows=100,
        contradicted_rows=0,
        holdout_rows=0,
    )
    now = BEGAN + timedelta(minutes=version)
    ref = house.versions[version]
    with house.state.begin() as tx:
        runs.decide(tx, decision)
        run = deciding.start_run(tx, decision, now, train_until=None, candidate=ref)
        runs.save_gate(tx, run.run_id, report)
        passed = outcome is GateOutcome.PASS
        runs.advance(tx, run, now, stage=Stage.PROPOSED if passed else Stage.REJECTED)


@pytest.mark.parametrize("kind", [TrialKind.CANARY, TrialKind.AB])
def test_callers_get_answers_of_what_passed_its_gate(house: House, kind: TrialKind) -> None:
    """A shadow's answers go to nobody: it needs no gate. --force is a person's word."""
    with pytest.raises(NotReady, match="did not pass its gate \\(it met none\\)"):
        house.order("trial", "start", "2", "--as", kind.value)
    gated(house, 2, GateOutcome.FAIL)
    with pytest.raises(NotReady, match="did not pass its gate \\(it is worse\\)"):
        house.order("trial", "start", "2", "--as", kind.value)
    gated(house, 3, GateOutcome.PASS)
    house.order("trial", "start", "3", "--as", kind.value)
    house.order("promote")
    assert house.rollout().champion.version == "3"
    assert house.rollout().trial is None


def test_a_share_that_is_none(house: House) -> None:
    """Refused with what is allowed."""
    for share in ("1.5", "-0.1", "nan"):
        order = ["--project", str(house.settings.project), "trial", "start", "2", "--as", "shadow"]
        done = CliRunner().invoke(cli, [*order, "--share", share])
        assert done.exit_code == 2
