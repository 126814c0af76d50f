"""A server follows its rollout record: swaps, rolls back, and never serves what is not proven."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_kit import (
    FEATURES,
    MODEL,
    Network,
    Server,
    add_version,
    make_project,
    publish,
    running,
)

from homeostat.records import Trial, TrialKind, VersionRef
from homeostat.registry.cache import entry_path, model_folder
from homeostat.settings import Settings
from homeostat.state.store import open_state
from retrain.promotion import promote
from retrain.publish import publish as publish_record

PROJECT = """
[serving]
poll = "50ms"
[registry]
tracking_uri = "http://127.0.0.1:9"  # nobody answers there: MLflow is away
"""
ROWS = [[1.0, 2.0, 3.0, 4.0], [-2.0, 0.5, 0.0, 1.0], [0.0, -3.0, 2.0, -1.0]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return make_project(tmp_path_factory.mktemp("serving") / "project", PROJECT)


@pytest.fixture(scope="module")
def versions(project: Settings) -> dict[int, VersionRef]:
    return {number: add_version(project, number) for number in (1, 2, 3)}


@pytest.fixture(scope="module")
def server(project: Settings, versions: dict[int, VersionRef]) -> Iterator[Server]:
    with running(project.project, wait=False) as server:
        yield server


@pytest.fixture
def on_version_1(
    server: Server, project: Settings, versions: dict[int, VersionRef], epochs: Iterator[int]
) -> None:
    publish(project, versions[1], next(epochs))
    server.wait_until_ready()
    server.wait_for_version(1)


@pytest.fixture(scope="module")
def epochs() -> Iterator[int]:
    return iter(range(1, 1000))


class Callers:
    """Threads that predict without a pause, and what they were told."""

    def __init__(self, url: str) -> None:
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[str] = Counter()
        self.wrong: list[dict[str, Any]] = []
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(4)]
        self._lock = threading.Lock()
        self._expected = {str(number): Network(number).expected(ROWS)[1] for number in (1, 2, 3)}

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as http:
            while not self._stop.is_set():
                response = http.post("/predict", json={"rows": ROWS})
                answer = response.json()
                with self._lock:
                    self.statuses[response.status_code] += 1
                    if response.status_code == 200:
                        self.versions[answer["version"]] += 1
                        expected = self._expected[answer["version"]]
                        if not all(
                            row == pytest.approx(wanted, abs=1e-5)
                            for row, wanted in zip(answer["probabilities"], expected, strict=True)
                        ):
                            self.wrong.append(answer)


def test_without_a_rollout_nothing_serves(server: Server) -> None:
    """Alive but not ready, and predictions say when to come again."""
    assert server.http.get("/health/live").status_code == 200
    assert server.http.get("/health/ready").status_code == 503
    answer = server.predict(ROWS)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["type"].endswith(":not-ready")


@pytest.mark.usefixtures("on_version_1")
def test_versions_swap_under_load(
    server: Server, project: Settings, versions: dict[int, VersionRef], epochs: Iterator[int]
) -> None:
    """No request fails, and no answer mixes two versions."""
    with Callers(server.url) as callers:
        for number in (2, 3, 1, 2):
            publish(project, versions[number], next(epochs))
            server.wait_for_version(number)
            seen = callers.versions[str(number)]
            server.wait_for(lambda n=number, s=seen: callers.versions[str(n)] > s)  # type: ignore[misc]
    assert callers.statuses.keys() == {200}
    assert callers.wrong == []
    assert callers.versions.keys() == {"1", "2", "3"}


@pytest.mark.usefixtures("on_version_1")
def test_the_version_before_is_ready_for_a_rollback(
    server: Server, project: Settings, versions: dict[int, VersionRef], epochs: Iterator[int]
) -> None:
    """Going back needs neither the cache nor a load."""
    publish(project, versions[2], next(epochs))
    server.wait_for_version(2)
    loaded = server.about()["previous"]
    assert loaded["version"] == "1"
    entry = entry_path(project.cache_path, MODEL, "1")
    aside = entry.rename(entry.with_name("aside"))
    try:
        publish(project, versions[1], next(epochs))
        server.wait_for_version(1)
    finally:
        aside.rename(entry)
    assert server.about()["serving"]["since"] == loaded["since"]
    assert server.about()["previous"]["version"] == "2"


@pytest.mark.usefixtures("on_version_1")
@pytest.mark.parametrize("harm", ["changed", "added", "other digest", "not fetched"])
def test_what_is_not_as_recorded_never_serves(
    server: Server,
    project: Settings,
    versions: dict[int, VersionRef],
    epochs: Iterator[int],
    harm: str,
) -> None:
    """The version before goes on, and the reason is told; a sound version serves afterwards."""
    number = {"changed": 11, "added": 12, "other digest": 13, "not fetched": 14}[harm]
    if harm == "not fetched":
        ref = VersionRef(version=str(number), digest="0" * 64)
    else:
        ref = add_version(project, number)
        folder = model_folder(entry_path(project.cache_path, MODEL, str(number)))
        spoil(folder, harm)
        if harm == "other digest":
            ref = VersionRef(version=str(number), digest="0" * 64)
    failures = errors_counted(server)
    publish(project, ref, next(epochs))
    server.wait_for(lambda: server.about()["problem"] is not None)
    about = server.about()
    assert f"version {number}:" in about["problem"]
    assert about["serving"]["version"] == "1"
    assert errors_counted(server) > failures
    assert server.predict(ROWS).json()["version"] == "1"
    publish(project, versions[3], next(epochs))
    server.wait_for_version(3)
    assert server.about()["problem"] is None


@pytest.mark.usefixtures("on_version_1")
@pytest.mark.parametrize("text", ["", "{", '{"model": "shapes"}'])
def test_an_unreadable_record_changes_nothing(
    server: Server, project: Settings, text: str, epochs: Iterator[int]
) -> None:
    """The last known record holds while the file says nothing sensible."""
    told = server.log.read_text().count("cannot be read")
    project.rollout_path.write_text(text)
    server.wait_for(lambda: server.log.read_text().count("cannot be read") > told)
    assert server.predict(ROWS).json()["version"] == "1"


@pytest.mark.usefixtures("on_version_1")
def test_a_canary_comes_beside_the_champion_and_goes(
    server: Server, project: Settings, versions: dict[int, VersionRef], epochs: Iterator[int]
) -> None:
    """The same key gets the same version; more get it with a greater share; with the end of the
    trial all are the champion's, and no request fails meanwhile."""
    people = [f"user {number}" for number in range(40)]

    def told() -> dict[str, str]:
        return {key: server.predict(ROWS[:1], keys=[key]).json()["version"] for key in people}

    def on_trial(share: float) -> dict[str, str]:
        trial = Trial(version=versions[2], kind=TrialKind.CANARY, share=share)
        publish(project, versions[1], epoch := next(epochs), trial)
        server.wait_for(lambda: (server.about()["trial"] or {}).get("loaded"))
        server.wait_for(lambda: server.about()["epoch"] == epoch)
        return told()

    with Callers(server.url) as callers:
        few, again, many = on_trial(0.3), told(), on_trial(0.7)
        publish(project, versions[1], next(epochs))
        server.wait_for(lambda: server.about()["trial"] is None)
        none = told()
    assert few == again
    assert {"1", "2"} == set(few.values())
    assert {key for key in people if few[key] == "2"} < {key for key in people if many[key] == "2"}
    assert set(none.values()) == {"1"}
    assert callers.statuses.keys() == {200}
    assert callers.wrong == []


@pytest.mark.usefixtures("on_version_1")
def test_a_version_is_asked_by_its_path(
    server: Server, project: Settings, versions: dict[int, VersionRef], epochs: Iterator[int]
) -> None:
    """Blue-green by name: the one before stays, and answers whoever names it. Others are not
    there, and the answer says which are."""
    publish(project, versions[2], next(epochs))
    server.wait_for_version(2)
    for number in (1, 2):
        path = f"/models/{MODEL}/versions/{number}/predict"
        answer = server.http.post(path, json={"rows": ROWS})
        assert answer.json()["version"] == str(number)
        assert answer.json()["predictions"] == Network(number).expected(ROWS)[0]
    gone = server.http.post(f"/models/{MODEL}/versions/7/predict", json={"rows": ROWS})
    assert gone.status_code == 404
    assert gone.json()["detail"].endswith("those that are: 2, 1")


@pytest.mark.usefixtures("on_version_1")
def test_a_trial_that_cannot_be_had_is_nothing_to_the_champion(
    server: Server, project: Settings, versions: dict[int, VersionRef], epochs: Iterator[int]
) -> None:
    """It serves on, without a problem of its own; the trial's is told."""
    missing = VersionRef(version="77", digest="0" * 64)
    trial = Trial(version=missing, kind=TrialKind.AB, share=0.5)
    publish(project, versions[3], next(epochs), trial)
    server.wait_for_version(3)
    server.wait_for(lambda: (server.about()["trial"] or {}).get("problem"))
    about = server.about()
    assert "version 77:" in about["trial"]["problem"]
    assert about["trial"]["loaded"] is None
    assert about["problem"] is None
    assert {server.predict(ROWS).json()["version"] for _ in range(10)} == {"3"}


def test_a_rollback_needs_neither_the_loop_nor_mlflow(tmp_path: Path) -> None:
    """The command alone, with nothing else running: the version before, which is in memory, serves
    again; no request fails."""
    project = make_project(tmp_path / "project", PROJECT)
    state = open_state(project.state_url)
    for number in (1, 2):
        with state.begin() as tx:
            rollout = promote(
                tx,
                MODEL,
                add_version(project, number),
                run_id=None,
                reason="it is better",
                actor="ada",
                now=datetime.now(UTC),
            )
        if number == 1:
            publish_record(project.rollout_path, rollout)
    with running(project.project) as server:
        server.wait_for_version(1)
        publish_record(project.rollout_path, rollout)
        server.wait_for_version(2)
        loaded = server.about()["previous"]
        entry_path(project.cache_path, MODEL, "1").rename(tmp_path / "aside")
        with Callers(server.url) as callers:
            command = [sys.executable, "-m", "loop", "--project", str(project.project), "rollback"]
            subprocess.run(command, check=True, capture_output=True)
            server.wait_for_version(1)
        assert callers.statuses.keys() == {200}
        assert callers.wrong == []
        assert server.about()["serving"]["since"] == loaded["since"]
    state.close()


def test_a_server_starts_from_its_cache_with_mlflow_away(
    project: Settings, versions: dict[int, VersionRef], epochs: Iterator[int], server: Server
) -> None:
    """The rollout file and the cache are enough."""
    other = make_project(project.project.parent / "restarted", PROJECT)
    other.home.mkdir()
    for name in ("cache", "rollout"):
        (other.home / name).symlink_to(Path("../../project/.homeostat") / name)
    publish(project, versions[2], next(epochs))
    with running(other.project) as restarted:
        assert restarted.predict(ROWS).json()["version"] == "2"
        expected = Network(2).expected(ROWS)[0]
        assert restarted.predict(ROWS).json()["predictions"] == expected
        assert len(restarted.about()["serving"]["signature"]["features"]) == len(FEATURES)


def spoil(folder: Path, harm: str) -> None:
    if harm == "changed":
        path = folder / "data" / "model.pt2"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif harm == "added":
        (folder / "extra.py").write_text("")


def errors_counted(server: Server) -> float:
    for line in server.http.get("/metrics").text.splitlines():
        if line.startswith("homeostat_version_errors_total{"):
            return float(line.split()[-1])
    return 0.0
