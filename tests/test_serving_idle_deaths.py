"""A model's worker process that dies while nothing is asked of it is noticed by the server, not by
the next caller."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from serving_kit import CLASSES, MODEL, Server, make_project, publish, running
from written_model_kit import add_written

ROW = [1.0, 2.0, 3.0, 4.0]
NAMED = f"/models/{MODEL}/versions/1/predict"  # falls back on nothing
# Its start takes as long as the file is there.
MODULE = """
import pathlib, time
import numpy as np

class Model:
    def predict(self, rows):
        return np.full((len(rows), 3), 1 / 3)

def _load_pyfunc(path):
    while pathlib.Path({hold!r}).exists():
        time.sleep(0.01)
    return Model()
"""


class Mortal:
    """A server, and the process of its model."""

    def __init__(self, server: Server, hold: Path) -> None:
        self.server = server
        self.hold = hold  # while it is there, no process of the model gets ready

    def worker(self) -> psutil.Process:
        children = psutil.Process(self.server.process.pid).children()
        [worker] = (each for each in children if "pyfunc_worker" in " ".join(each.cmdline()))
        return worker

    def ready(self) -> bool:
        return self.server.http.get("/health/ready").status_code == 200

    def ask(self, seconds: float | None = None) -> httpx.Response:
        headers = {} if seconds is None else {"x-request-timeout": str(seconds)}
        return self.server.http.post(NAMED, json={"rows": [ROW]}, headers=headers)


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    folder = tmp_path_factory.mktemp("mortal")
    settings = f"""[serving]\ndefault_answer = '"{CLASSES[0]}"'\n"""
    project, hold = make_project(folder / "project", settings), folder / "hold"
    publish(project, add_written(project, MODULE.format(hold=str(hold))), epoch=1)
    with running(project.project) as server:
        yield Mortal(server, hold)


def test_a_worker_that_dies_idle_is_started_again_at_once(mortal: Mortal) -> None:
    """Though nobody asks. Meanwhile the server is not ready, the version counts as one that fails,
    and who waits for it nevertheless is told in time."""
    server, before = mortal.server, mortal.worker().pid
    mortal.hold.touch()
    mortal.worker().kill()
    server.wait_for(lambda: not mortal.ready())
    assert "is being started again" in server.http.get("/health/ready").json()["detail"]
    instead = server.predict([ROW]).json()
    assert (instead["version"], instead["fallback"]) == ("default", True)
    assert mortal.ask(0.2).status_code == 504
    mortal.hold.unlink()
    server.wait_until_ready()
    assert mortal.worker().pid != before
    answer = server.predict([ROW]).json()
    assert (answer["version"], answer.get("fallback")) == ("1", None)


def test_rows_that_a_dead_worker_never_read_are_asked_again(mortal: Mortal) -> None:
    """Of the next one. Nobody waits for its start longer than he wants to."""
    mortal.server.wait_until_ready()
    mortal.hold.touch()
    worker = mortal.worker()
    worker.send_signal(signal.SIGSTOP)
    # not before: on its way to a stop it might still read what is sent to it
    mortal.server.wait_for(lambda: worker.status() == psutil.STATUS_STOPPED)
    with ThreadPoolExecutor(2) as callers:
        patient = callers.submit(mortal.ask)
        time.sleep(0.2)  # they are on their way to it
        hasty = callers.submit(mortal.ask, 0.5)
        worker.kill()
        assert hasty.result().status_code == 504
        assert not patient.done()
        mortal.hold.unlink()
        assert patient.result().json()["version"] == "1"
