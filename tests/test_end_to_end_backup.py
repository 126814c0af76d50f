"""A project that runs is backed up under load, lost, and goes on elsewhere."""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import project_kit as kit
import pytest

from homeostat.client import Client
from homeostat.errors import HomeostatError
from homeostat.journal.reader import Journal
from homeostat.settings import load


class Traffic(threading.Thread):
    """Rows, each remembered once the server has answered, and some labels."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._client = Client(url)
        self._frame = kit.rows(0)[450:]
        self._stopping = threading.Event()
        self.acknowledged: list[str] = []

    def run(self) -> None:
        rng = np.random.default_rng(1)
        while not self._stopping.wait(0.01):
            drawn = kit.noisy(self._frame, 20, rng)
            truth = drawn.pop(kit.TARGET).tolist()
            try:
                ids = self._client.predict(kit.records(drawn)).ids
                self.acknowledged += ids
                labels = zip(ids, truth, strict=True)
                self._client.labels([{"id": id_, "value": value} for id_, value in labels])
            except HomeostatError:
                return  # the server was killed

    def stop(self) -> None:
        self._stopping.set()
        self.join()


@pytest.mark.timeout(400)
def test_lost_and_restored_elsewhere(tmp_path: Path) -> None:
    """The backup holds every row acknowledged before it began; status, check and serve work, and
    MLflow's files are found in the new place."""
    old = kit.make_project(tmp_path / "old", checks=False)
    with kit.running(old, "up") as up:
        server = kit.until("the server", lambda: kit.address(old, "serving"))
        with Client(server) as client:
            kit.until("the first version", client.ready)
        traffic = Traffic(server)
        traffic.start()
        kit.until("some rows", lambda: len(traffic.acknowledged) > 1000)
        before = set(traffic.acknowledged)
        done = kit.homeostat(old, "backup", "create", str(tmp_path / "backup.tar"))
        assert done.returncode == 0, done.stderr + done.stdout
        assert "not in the backup" not in done.stdout
        traffic.stop()
        refused = kit.homeostat(old, "backup", "restore", str(tmp_path / "backup.tar"), "--force")
        assert "is up already" in refused.stderr + refused.stdout
        up.terminate()
        up.wait(60)
    new = tmp_path / "new"
    shutil.copytree(old, new, ignore=shutil.ignore_patterns(".homeostat", "*.log"))
    shutil.rmtree(old)

    done = kit.homeostat(new, "backup", "restore", str(tmp_path / "backup.tar"))
    assert done.returncode == 0, done.stderr
    assert "version 1 serves" in done.stdout
    settings = load(new, {})
    journal = Journal(settings.journal_path, settings.model.name, settings.model.task)
    now = datetime.now(UTC)
    rows = journal.window(now - timedelta(hours=1), now, ()).to_pydict()
    assert before <= set(rows["_prediction_id"])
    assert len(rows["_prediction_id"]) == len(set(rows["_prediction_id"]))
    assert kit.present(kit.status(new).rollout).champion.version == "1"
    shutil.rmtree(settings.cache_path)  # so that the version has to come from MLflow
    with kit.running(new, "serve"):
        server = kit.until("the server", lambda: kit.address(new, "serving"))
        with Client(server) as client:
            kit.until("its version", client.ready)
            row = kit.records(kit.rows(1).drop(columns=kit.TARGET).head(400))
            assert client.predict(row).version == "1"
        checked = kit.homeostat(new, "check")
        assert checked.returncode == 0, checked.stdout + checked.stderr
