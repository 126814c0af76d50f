"""The loop closes on a tabular project: the real command line, in child processes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import project_kit as kit
import pytest
from mlflow import MlflowClient

from alerts.verify import verify
from homeostat.client import Client
from homeostat.errors import AuthError, HomeostatError

SLOWLY = {"HOMEOSTAT_RETRAIN_TIME_LIMIT": "4m"}  # as a training may go on a busy machine
SECRET = "whsec_" + "aG9tZW9zdGF0LXRlc3RzLWhvbWVvc3RhdC10ZXN0cw=="


@dataclass
class Receiver:
    types: list[str] = field(default_factory=list)
    refused: int = 0


@pytest.fixture
def receiver() -> Iterator[tuple[str, Receiver]]:
    got = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                got.types.append(verify(headers, body, SECRET)["type"])
                self.send_response(204)
            except AuthError:
                got.refused += 1
                self.send_response(401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", got
    server.shutdown()
    server.server_close()


class Production(threading.Thread):
    """Sends rows and their labels until stopped; the world can be changed meanwhile."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.client = Client(url)
        self.shifted = False
        self.failures: list[str] = []
        self.versions: set[str] = set()
        self.sent = 0
        self._stop_now = threading.Event()
        self._frame = kit.rows(0)[450:]
        self._rng = np.random.default_rng(1)

    def run(self) -> None:
        while not self._stop_now.wait(0.08):
            drawn = kit.noisy(self._frame, 24, self._rng)
            truth = drawn.pop(kit.TARGET).tolist()
            if self.shifted:
                # Another instrument: everything is measured on another scale.
                drawn = drawn * 1.6 + drawn.mean() * 0.3
            try:
                answer = self.client.predict(kit.records(drawn))
                self.client.labels(
                    [{"id": i, "value": v} for i, v in zip(answer.ids, truth, strict=True)]
                )
            except HomeostatError as error:
                self.failures.append(repr(error))
                continue
            self.sent += len(truth)
            self.versions.add(answer.version)

    def stop(self) -> None:
        self._stop_now.set()
        self.join(30)
        self.client.close()


@pytest.mark.timeout(800)
def test_the_loop_closes(tmp_path: Path, receiver: tuple[str, Receiver]) -> None:
    """Bootstrap, traffic, drift, alert, retraining, gate, promotion, swap, rollback."""
    url, got = receiver
    more = f'[[alerts]]\nurl = "{url}"\nsecret_env = "HOMEOSTAT_TEST_SECRET"\n'
    project = kit.make_project(tmp_path / "cancer", more=more)
    env = kit.environ(HOMEOSTAT_TEST_SECRET=SECRET, **SLOWLY)
    with kit.running(project, "up", env) as up:
        server = kit.until("the server", lambda: kit.address(project, "serving"))
        with Client(server) as client:
            kit.until("the first version", client.ready)
        production = Production(server)
        production.start()
        try:
            _drift_is_answered(project, production)
        finally:
            production.stop()
        assert production.failures == []
        told = {"drift.detected", "model.promoted"}
        kit.until("the alerts", lambda: told <= set(got.types))
        assert got.refused == 0
        _pages_answer(project)
        _a_check_by_hand_goes_beside_the_loop(project)
        before = kit.present(kit.status(project).rollout)
        _rollback(project, server, kit.present(before.previous).version)
        up.terminate()
        assert up.wait(60) == 0


def _drift_is_answered(project: Path, production: Production) -> None:
    def reference_is_production() -> bool:
        checks = kit.glance(project).checks
        return any(check.verdict and check.verdict.rebased for check in checks)

    kit.until("a reference from production", reference_is_production)
    production.shifted = True
    promoted = kit.until(
        "a second version",
        lambda: next((r for r in kit.glance(project).rollouts if r.epoch == 2), None),
    )
    kit.until("answers of it", lambda: promoted.champion.version in production.versions)
    status = kit.status(project)
    run = next(run for run in status.runs if run.run_id == promoted.run_id)
    report = status.gates[run.run_id]
    assert run.verdict_kind in ("harmful_shift", "concept_drift")
    assert report.outcome == "pass"
    assert kit.present(report.candidate_holdout) > kit.present(report.champion_holdout)
    decision = next(d for d in status.decisions if d.decision_id == run.decision_id)
    assert decision.check_id in {check.check_id for check in status.checks}


def _pages_answer(project: Path) -> None:
    console = kit.present(kit.address(project, "console"))
    with httpx.Client(base_url=console, timeout=60) as pages:
        status = pages.get("/api/status").json()
        assert status["rollout"]["epoch"] == 2
        assert "version" in pages.get("/").text
        check = next(c for c in status["checks"] if c["verdict"] and c["verdict"]["report"])
        report = pages.get(f"/reports/{check['check_id']}/report.html")
        assert report.status_code == 200
        assert "plotly" in report.text, "Evidently draws with it"
        assert pages.get("/reports/..%2f..%2fstate.db/report.html").status_code == 404
        promoted = 'homeostat_runs_total{model="cancer",outcome="promoted"} 2.0'
        kit.until("both runs in the metrics", lambda: promoted in pages.get("/metrics").text)


def _a_check_by_hand_goes_beside_the_loop(project: Path) -> None:
    done = kit.homeostat(project, "check", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    check_id = json.loads(done.stdout)["check_id"]
    kept = next(c for c in kit.status(project).checks if c.check_id == check_id)
    assert kept.status == "done"


def _rollback(project: Path, server: str, version: str) -> None:
    kit.homeostat(project, "pause", "--reason", "looking into it")
    done = kit.homeostat(project, "rollback", "--reason", "a test")
    assert done.returncode == 0, done.stderr
    with Client(server) as client:
        kit.until("the old version", lambda: client.models()[0]["serving"]["version"] == version)
    status = kit.status(project)
    assert kit.present(status.rollout).champion.version == version
    assert status.control.paused


@pytest.mark.timeout(600)
def test_a_person_has_the_last_word_in_mode_propose(tmp_path: Path) -> None:
    """A version that passed waits; promote serves it; a spoilt one is turned away by the gate."""
    project = kit.make_project(tmp_path / "cancer", mode="propose", checks=False)
    with kit.running(project, "loop", kit.environ(**SLOWLY)):
        kit.until(
            "a proposal", lambda: any(r.stage == "proposed" for r in kit.glance(project).runs)
        )
        assert kit.status(project).rollout is None
        done = kit.homeostat(project, "promote", "--reason", "looks right")
        assert done.returncode == 0, done.stderr
        status = kit.status(project)
        assert kit.present(status.rollout).champion.version == "1"
        assert kit.present(status.rollout).reason == "looks right"
        kit.until("the alias in MLflow", lambda: _alias(project) == "1")
        spoilt = kit.homeostat(
            project, "retrain", "--", "python", "train.py", "--data", "{train}", "--spoil"
        )
        assert spoilt.returncode == 1, spoilt.stdout + spoilt.stderr
        assert "fail" in spoilt.stdout
        status = kit.status(project)
        assert status.runs[0].stage == "rejected"
        assert kit.present(status.rollout).champion.version == "1"
        refused = kit.homeostat(project, "promote", "2")
        assert refused.returncode == 1
        assert "did not pass its gate" in refused.stderr
        _an_alias_moved_by_hand_is_followed(project)


def _an_alias_moved_by_hand_is_followed(project: Path) -> None:
    _client(project).set_registered_model_alias("cancer", "champion", "2")
    adopted = kit.until(
        "an adoption",
        lambda: next((r for r in kit.glance(project).rollouts if r.epoch == 2), None),
    )
    assert adopted.champion.version == "2"
    assert kit.present(adopted.previous).version == "1"
    kit.until("the alias of the previous one", lambda: _alias(project, "previous") == "1")
    status = kit.status(project)
    assert [e.type for e in status.events].count("model.adopted") == 1
    assert kit.present(status.rollout).epoch == 2, "taken once, and not fought over"


def _alias(project: Path, name: str = "champion") -> str:
    return str(_client(project).get_registered_model("cancer").aliases.get(name))


def _client(project: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project}/.homeostat/mlflow.db")
