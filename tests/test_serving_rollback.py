"""A rollback waits for no load and no fetch, and a version that was taken back meanwhile never
serves.

One version takes as long to load as a test wants: its code waits for a file.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from object_store_kit import BUCKET, object_store
from serving_kit import (
    PATIENCE,
    Server,
    add_version,
    make_project,
    publish,
    running,
)
from written_model_kit import add_written

from homeostat.records import Trial, TrialKind, VersionRef
from homeostat.settings import Settings

ROWS = [[1.0, 2.0, 3.0, 4.0]]
SLOW = "9"
MISSING = VersionRef(version="77", digest="0" * 64)  # in no cache
PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "600", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
WAITS = """
import time
from pathlib import Path

FOLDER = Path({folder!r})


class Waited:
    def predict(self, rows):
        return ["star"] * len(rows)


def _load_pyfunc(path):
    with (FOLDER / "begun").open("a") as begun:
        begun.write("once more\\n")
    while not (FOLDER / "go").exists():
        time.sleep(0.02)
    return Waited()
"""


class Slow:
    """A server on version 2, with version 1 before it, version 3 in the cache alone, and a version
    that waits for `go`."""

    def __init__(
        self,
        server: Server,
        settings: Settings,
        refs: dict[int, VersionRef],
        mlflow: socket.socket,
    ) -> None:
        self.server, self.mlflow = server, mlflow
        self.slow = add_written(settings, WAITS.format(folder=str(settings.project)), SLOW)
        self._settings, self.refs = settings, refs
        self._epoch = 0
        for number in (1, 2):
            self.promote(refs[number])
            server.wait_until_ready()
            server.wait_for_version(number)

    def promote(self, ref: VersionRef, trial: VersionRef | None = None) -> None:
        self._epoch += 1
        tried = Trial(version=trial, kind=TrialKind.CANARY, share=0.0) if trial else None
        publish(self._settings, ref, self._epoch, tried)

    def roll_back(self, number: int, trial: VersionRef | None = None) -> None:
        """And see that it is done, while the slow one is loaded still."""
        self.promote(self.refs[number], trial)
        self.server.wait_for(lambda: self.server.about()["epoch"] == self._epoch)
        assert self.server.predict(ROWS).json()["version"] == str(number)
        assert self.server.about()["problem"] is None
        assert self.begun == 1
        assert len(self.workers) == 1

    def wait_for_its_load(self) -> None:
        self.server.wait_for(lambda: self.begun == 1)

    def let_it_load(self) -> None:
        (self._settings.project / "go").touch()

    @property
    def begun(self) -> int:
        path = self._settings.project / "begun"
        return len(path.read_text().splitlines()) if path.exists() else 0

    @property
    def workers(self) -> list[psutil.Process]:
        """In which versions of its kind are."""
        return self.children("homeostat.model_runtime.pyfunc_worker")

    @contextmanager
    def fetching(self) -> Iterator[psutil.Process]:
        """The helper, within the block: MLflow is well, but gives no answer to what it asks."""
        health, _ = self.mlflow.accept()
        with health:
            health.recv(65536)
            health.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        asked, _ = self.mlflow.accept()
        with asked:
            (helper,) = self.children("homeostat.registry")
            yield helper

    def children(self, module: str) -> list[psutil.Process]:
        found = []
        for each in psutil.Process(self.server.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if module in each.cmdline():
                    found.append(each)
        return found


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    with socket.create_server(("127.0.0.1", 0)) as mlflow:
        mlflow.settimeout(PATIENCE)
        settings = make_project(
            tmp_path / "project",
            f"""
            [serving]
            poll = "50ms"
            [registry]
            tracking_uri = "http://127.0.0.1:{mlflow.getsockname()[1]}"
            """,
        )
        refs = {number: add_version(settings, number, runtime="onnx") for number in (1, 2, 3)}
        with running(settings.project, wait=False, environ=PATIENT) as server:
            yield Slow(server, settings, refs, mlflow)


def test_a_promotion_is_taken_back_while_it_is_loaded(slow: Slow) -> None:
    """To the version that serves and to the one before it, at once; the one that was loaded in
    vain leaves memory again, and serves if it is promoted once more."""
    slow.promote(slow.slow)
    slow.wait_for_its_load()
    slow.roll_back(2)
    slow.promote(slow.slow)
    slow.roll_back(1)
    slow.let_it_load()
    slow.server.wait_for(lambda: f"version {SLOW} is closed" in slow.server.log.read_text())
    assert slow.workers == []
    about = slow.server.about()
    assert about["serving"]["version"] == "1"
    assert about["previous"]["version"] == "2"
    assert f"version {SLOW} serves" not in slow.server.log.read_text()
    slow.promote(slow.slow)
    slow.server.wait_for_version(int(SLOW))
    assert slow.begun == 2


def test_a_rollback_waits_for_no_fetch(slow: Slow) -> None:
    """MLflow takes the question, and says nothing. The helper that asked ends."""
    slow.promote(MISSING)
    with slow.fetching() as helper:
        slow.promote(slow.refs[1])
        slow.server.wait_for_version(1)
        slow.server.wait_for(lambda: not helper.is_running())
        assert "cannot serve" not in slow.server.log.read_text(), "it was not over by itself"


def test_what_is_not_in_memory_waits_for_no_fetch(slow: Slow) -> None:
    """It is in the cache: what is fetched for a record that holds no more is left alone."""
    slow.promote(MISSING)
    with slow.fetching() as helper:
        slow.promote(slow.refs[3])
        slow.server.wait_for_version(3)
        assert not helper.is_running()
        assert "cannot serve" not in slow.server.log.read_text()
        assert slow.server.about()["problem"] is None


def test_a_champion_comes_before_the_fetch_of_a_trial(slow: Slow) -> None:
    """Of its own, which begins anew once it serves, and of one that is over."""
    slow.promote(slow.refs[2], trial=MISSING)
    with slow.fetching() as first:
        slow.promote(slow.refs[3], trial=MISSING)
        slow.server.wait_for_version(3)
        assert not first.is_running()
    with slow.fetching() as second:
        slow.promote(slow.refs[1])
        slow.server.wait_for_version(1)
        assert not second.is_running()
        assert slow.server.about()["trial"] is None
    assert "cannot serve" not in slow.server.log.read_text()


def test_a_fetch_outlives_a_change_that_keeps_its_version(slow: Slow) -> None:
    """On trial beside another champion that is in memory, and then the champion itself: what was
    fetched so far is not thrown away."""
    slow.promote(slow.refs[2], trial=MISSING)
    with slow.fetching() as helper:
        for number in (1, 2, 1):
            slow.promote(slow.refs[number], trial=MISSING)
            slow.server.wait_for_version(number)
        slow.promote(MISSING)
        time.sleep(0.2)  # four polls
        slow.promote(slow.refs[2], trial=MISSING)
        slow.server.wait_for_version(2)
        assert slow.children("homeostat.registry") == [helper]


def test_a_promotion_waits_for_no_log(tmp_path: Path) -> None:
    """Whether a version's rows fit the log is asked beside all else: its storage hangs."""
    with object_store() as store:
        project = make_project(
            tmp_path, f'[serving]\npoll = "50ms"\n[journal]\npath = "s3://{BUCKET}/log"\n'
        )
        refs = [add_version(project, number, runtime="onnx") for number in (1, 2)]
        publish(project, refs[0], epoch=1)
        with store.hanging(), running(project.project, environ=store.environ) as server:
            server.wait_for_version(1)
            publish(project, refs[1], epoch=2)
            server.wait_for_version(2)
            assert "fits the log is not known" not in server.log.read_text()


def test_a_rollback_waits_for_no_trial(slow: Slow) -> None:
    """Nor does it end one that goes on beside the version before."""
    slow.promote(slow.refs[2], trial=slow.slow)
    slow.wait_for_its_load()
    slow.roll_back(1, trial=slow.slow)
    slow.let_it_load()
    slow.server.wait_for(lambda: (slow.server.about()["trial"] or {}).get("loaded"))
    assert slow.server.about()["serving"]["version"] == "1"
    assert slow.begun == 1
