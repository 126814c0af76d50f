"""A rollback waits for no load, and a version that was taken back while it was loaded never serves.

One version takes as long to load as a test wants: its code waits for a file.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from serving_kit import (
    FEATURES,
    MODEL,
    PATIENCE,
    Server,
    add_version,
    make_project,
    publish,
    running,
)

from homeostat.records import Feature, ModelSpec, Task, Trial, TrialKind, VersionRef, to_json
from homeostat.registry.cache import SPEC_FILE, digest_of, entry_path, hash_files, model_folder
from homeostat.settings import Settings

ROWS = [[1.0, 2.0, 3.0, 4.0]]
SLOW = "9"
MLMODEL = """
flavors:
  python_function:
    code: code
    loader_module: waits
signature:
  inputs: '{inputs}'
"""
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
    """A server on version 2, with version 1 before it, and a version that waits for `go`."""

    def __init__(
        self,
        server: Server,
        settings: Settings,
        refs: dict[int, VersionRef],
        mlflow: socket.socket,
    ) -> None:
        self.server, self.mlflow = server, mlflow
        self.slow = _add_slow(settings)
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

    def children(self, module: str) -> list[psutil.Process]:
        children = psutil.Process(self.server.process.pid).children(recursive=True)
        return [each for each in children if module in each.cmdline()]


def _add_slow(settings: Settings) -> VersionRef:
    entry = entry_path(settings.cache_path, MODEL, SLOW)
    folder = model_folder(entry)
    (folder / "code").mkdir(parents=True)
    columns = [{"name": feature, "type": "double"} for feature in FEATURES]
    (folder / "MLmodel").write_text(MLMODEL.format(inputs=json.dumps(columns)))
    (folder / "code" / "waits.py").write_text(WAITS.format(folder=str(settings.project)))
    spec = ModelSpec(
        model=MODEL,
        version=SLOW,
        runtime="pyfunc",
        task=Task.CLASSIFICATION,
        features=tuple(Feature(name=feature) for feature in FEATURES),
        files=hash_files(folder),
    )
    (entry / SPEC_FILE).write_bytes(to_json(spec))
    return VersionRef(version=SLOW, digest=digest_of(spec))


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
        refs = {number: add_version(settings, number, runtime="onnx") for number in (1, 2)}
        with running(settings.project, wait=False) as server:
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
    """MLflow takes the connection, and says nothing."""
    slow.promote(VersionRef(version="77", digest="0" * 64))
    mlflow, _ = slow.mlflow.accept()
    with mlflow:
        slow.promote(slow.refs[1])
        slow.server.wait_for_version(1)
        assert slow.children("homeostat.registry"), "it is fetched still"


def test_a_rollback_waits_for_no_trial(slow: Slow) -> None:
    """Nor does it end one that goes on beside the version before."""
    slow.promote(slow.refs[2], trial=slow.slow)
    slow.wait_for_its_load()
    slow.roll_back(1, trial=slow.slow)
    slow.let_it_load()
    slow.server.wait_for(lambda: (slow.server.about()["trial"] or {}).get("loaded"))
    assert slow.server.about()["serving"]["version"] == "1"
    assert slow.begun == 1
