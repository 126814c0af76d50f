"""The end of a server whose model hangs: it keeps its time, and what was answered is kept."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from journal_kit import ids_of
from serving_kit import CLASSES, FEATURES, MODEL, PATIENCE, make_project, publish, running
from written_model_kit import add_written

from homeostat.journal.reader import Journal
from homeostat.records import Task
from homeostat.settings import Settings

ROW, ENDLESS = [1.0, 2.0, 3.0, 4.0], [1e6, 0.0, 0.0, 0.0]
LONGEST = 60.0  # seconds; by itself the model would hang for ten minutes
MODULE = """
import pathlib, time
import numpy as np

def hang():
    pathlib.Path({marker!r}).touch()
    time.sleep(600)

class Model:
    def predict(self, rows):
        if np.max(rows) > 1e5:
            hang()
        return np.full((len(rows), 3), 1 / 3)

def _load_pyfunc(path):
    {load}
    return Model()
"""


def project_at(folder: Path, load: str = "pass") -> tuple[Settings, Path]:
    """With a model that somebody wrote; and the file that is there once it hangs."""
    project = make_project(folder, '[serving]\ndrain = "1s"\n[journal]\ncommit_every = "1h"\n')
    marker = folder / "hangs"
    written = add_written(project, MODULE.format(marker=str(marker), load=load))
    publish(project, written, epoch=1)
    return project, marker


def test_a_model_that_hangs_holds_up_no_end(tmp_path: Path) -> None:
    """SIGTERM while it hangs: its caller has no answer after serving.drain, the status is 0, and
    the row that was answered before is in the table."""
    project, marker = project_at(tmp_path)
    answers: list[int] = []

    def call(url: str) -> None:
        try:
            asked = httpx.post(f"{url}/predict", json={"rows": [ENDLESS]}, timeout=PATIENCE)
            answers.append(asked.status_code)
        except httpx.TransportError:
            answers.append(0)

    with running(project.project) as server:
        answer = server.predict([ROW], ids=["kept"])
        assert answer.json()["predictions"][0] in CLASSES
        caller = threading.Thread(target=call, args=(server.url,))
        caller.start()
        server.wait_for(marker.exists)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(LONGEST) == 0
        caller.join(LONGEST)
        assert answers != [200]
        assert "what still waits for its model is not answered" in server.log.read_text()
    now, hour = datetime.now(UTC), timedelta(hours=1)
    reader = Journal(project.journal_path, MODEL, Task.CLASSIFICATION)
    assert ids_of(reader.window(now - hour, now + hour, FEATURES)) == ["kept"]


def test_a_load_that_hangs_holds_up_no_end(tmp_path: Path) -> None:
    """SIGTERM while a version is still being loaded: the same."""
    project, marker = project_at(tmp_path, load="hang()")
    with running(project.project, wait=False) as server:
        server.wait_for(marker.exists)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(LONGEST) == 0
