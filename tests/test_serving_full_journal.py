"""What callers are told while the prediction log takes nothing: its store away, its disk full."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import duckdb
import httpx
import pytest
from deltalake import DeltaTable
from serving_kit import Server, add_version, make_project, publish, running

from homeostat.identifiers import uuid7
from homeostat.settings import Settings

SMALL = """
[journal]
commit_every = "100ms"
commit_bytes = "16KB"
spool = "100KB"
memory = "50KB"
{journal}
[serving]
max_queued_rows = 40
"""
PROJECTS = {
    "hasty": 'block_for = "200ms"',
    "patient": 'block_for = "60s"',
    "dropping": 'when_full = "drop"',
    "quick": 'durability = "async"\nblock_for = "200ms"',
    "quick-dropping": 'durability = "async"\nwhen_full = "drop"',
}
ROWS = [[1.0, 2.0, 3.0, 4.0]] * 10
MANY = 2000  # requests; far more than fill the log


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Settings]:
    folder = tmp_path_factory.mktemp("full")
    made = {}
    for name, journal in PROJECTS.items():
        made[name] = make_project(folder / name, SMALL.format(journal=journal), model=name)
        publish(made[name], add_version(made[name], 1, runtime="onnx"), epoch=1)
    return made


@pytest.fixture(scope="module")
def server(projects: dict[str, Settings]) -> Iterator[Server]:
    with running(*(each.project for each in projects.values())) as server:
        yield server


@contextmanager
def at_once(server: Server) -> Iterator[None]:
    """For the server: else it may make a folder anew between two steps."""
    server.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


@contextmanager
def store_away(server: Server, project: Settings) -> Iterator[None]:
    """A file lies where the folder of the tables was."""
    tables = Path(project.journal_path)
    aside = tables.with_name("aside")
    with at_once(server):
        if tables.exists():
            tables.rename(aside)
        tables.write_text("not a folder")
    yield
    with at_once(server):
        tables.unlink()
        if aside.exists():
            aside.rename(tables)


@contextmanager
def disk_full(server: Server, _project: Settings) -> Iterator[None]:
    """No file of the server's can grow by a byte."""
    _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, most))
    yield
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, most))


@contextmanager
def spool_gone(server: Server, project: Settings) -> Iterator[None]:
    """No file can be made in the spool's folder: it is no folder any more."""
    (folder,) = (project.spool_path / project.model.name).iterdir()
    with at_once(server):
        aside = folder.rename(folder.with_name("aside"))
        folder.write_text("not a folder")
    yield
    with at_once(server):
        folder.unlink()
        aside.rename(folder)


Fault = Callable[[Server, Settings], AbstractContextManager[None]]
FAULTS: list[Fault] = [store_away, disk_full, spool_gone]


class Caller:
    """Asks under ids of its own, and remembers what it was told of each."""

    def __init__(self, server: Server, name: str) -> None:
        self.http, self.name = server.http, name
        self.mark = uuid7()
        self.answered: list[str] = []
        self.refused: list[str] = []

    def predict(self) -> httpx.Response:
        number = len(self.answered) + len(self.refused)
        ids = [f"{self.mark}/{number}/{row}" for row in range(len(ROWS))]
        answer = self.http.post(f"/models/{self.name}/predict", json={"rows": ROWS, "ids": ids})
        assert answer.status_code in (200, 503), answer.text
        (self.answered if answer.status_code == 200 else self.refused).extend(ids)
        return answer

    def until(self, status: int) -> httpx.Response:
        for _ in range(MANY):
            answer = self.predict()
            if answer.status_code == status:
                return answer
        raise AssertionError(f"{MANY} requests, and none was answered with {status}")


def label(server: Server, name: str, ids: list[str]) -> httpx.Response:
    labels = [{"id": each, "value": "star"} for each in ids]
    return server.http.post(f"/models/{name}/labels", json={"labels": labels})


def stored(server: Server, project: Settings, table: str = "predictions") -> Counter[str]:
    """How often each id is in the files of a table, once everything has been committed."""
    name = project.model.name
    server.wait_for(lambda: server.http.post(f"/models/{name}/flush").status_code == 200)
    files = DeltaTable(f"{project.journal_path}/{name}/{table}").file_uris()
    rows = duckdb.execute(f"select prediction_id from read_parquet({files})").fetchall()
    return Counter(row[0] for row in rows)


def counted(server: Server, name: str) -> dict[str, int]:
    """The counters of a model's journal."""
    prefix, found = "homeostat_journal_", {}
    for line in server.http.get("/metrics").text.splitlines():
        if line.startswith(prefix) and f'model="{name}"' in line:
            found[line.partition("{")[0].removeprefix(prefix)] = int(float(line.split()[-1]))
    return found


def mine(caller: Caller, table: Counter[str]) -> Counter[str]:
    return Counter({each: n for each, n in table.items() if each.startswith(caller.mark)})


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["hasty", "quick"])
def test_what_finds_no_room_is_refused_and_the_rest_is_kept(
    server: Server, projects: dict[str, Settings], name: str, fault: Fault
) -> None:
    """A 503 that says when to come again; afterwards the table holds what was answered, once."""
    caller = Caller(server, name)
    caller.until(200)
    with fault(server, projects[name]):
        refused = caller.until(503)
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["type"].partition(":problem:")[2] in (
            "journal-full",
            "journal-unavailable",
        )
        assert server.http.get("/health/ready").status_code == 200
        assert counted(server, name)["dropped_total"] == 0
    stored(server, projects[name])
    caller.until(200)
    found = mine(caller, stored(server, projects[name]))
    assert found == Counter(caller.answered)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["dropping", "quick-dropping"])
def test_where_rows_may_be_dropped_every_answer_goes_out(
    server: Server, projects: dict[str, Settings], name: str, fault: Fault
) -> None:
    """What is not in the table was counted, to the row."""
    caller, before = Caller(server, name), counted(server, name)
    kept = len(stored(server, projects[name])) if before["received_total"] else 0
    with fault(server, projects[name]):
        for _ in range(MANY):
            assert caller.predict().status_code == 200
            if counted(server, name)["dropped_total"] > before["dropped_total"]:
                break
    server.wait_for(lambda: caller.predict().status_code == 200)
    found = stored(server, projects[name])
    counts = {key: value - before[key] for key, value in counted(server, name).items()}
    assert counts["received_total"] == len(caller.answered)
    assert counts["dropped_total"] > 0
    assert counts["dropped_total"] == len(caller.answered) - len(mine(caller, found))
    assert counts["stored_total"] == len(found) - kept
    assert set(found.values()) == {1}


def test_answers_wait_for_room_and_come_when_it_does(
    server: Server, projects: dict[str, Settings]
) -> None:
    """As many rows as may be queued; who comes then is told at once, and all else goes on."""
    callers = [Caller(server, "patient") for _ in range(4)]
    stop = threading.Event()

    def ask(caller: Caller) -> None:
        while not stop.is_set():
            assert caller.predict().status_code == 200

    threads = [threading.Thread(target=ask, args=[caller]) for caller in callers]
    with store_away(server, projects["patient"]):
        for thread in threads:
            thread.start()
        # a batch that has found no room holds up all that come after it
        full = f"the journal does not take predictions: the spool {projects['patient'].spool_path}"
        server.wait_for(lambda: full in server.log.read_text())
        server.wait_for(lambda: queued(server, "patient") == len(threads) * len(ROWS))
        late = Caller(server, "patient")
        refused = late.predict()
        assert refused.status_code == 503
        assert "room in the prediction log" in refused.json()["detail"]
        assert Caller(server, "hasty").predict().status_code == 200
        assert server.http.get("/health/ready").status_code == 200
        stop.set()
        assert queued(server, "patient") == len(threads) * len(ROWS)
    for thread in threads:
        thread.join()
    found = stored(server, projects["patient"])
    for caller in callers:
        assert mine(caller, found) == Counter(caller.answered)
        assert not caller.refused
    assert not mine(late, found)


def queued(server: Server, name: str) -> int:
    models = server.http.get("/models").json()["models"]
    return int(next(model["queued_rows"] for model in models if model["name"] == name))


def test_labels_have_room_when_predictions_have_none(
    server: Server, projects: dict[str, Settings]
) -> None:
    """A reserve is theirs, and each that was taken is kept."""
    caller = Caller(server, "hasty")
    taken: list[str] = []
    with store_away(server, projects["hasty"]):
        caller.until(503)
        for turn in range(20):
            taken += [f"{caller.mark}/{turn}/{row}" for row in range(50)]
            assert label(server, "hasty", taken[-50:]).status_code == 200
    found = stored(server, projects["hasty"], "labels")
    assert mine(caller, found) == Counter(taken)
    assert set(found.values()) == {1}


@pytest.mark.parametrize("name", ["hasty", "dropping"])
def test_a_label_the_disk_does_not_take_is_refused(
    server: Server, projects: dict[str, Settings], name: str
) -> None:
    """Whatever may happen to rows: a 2xx means that the label is on the disk."""
    with disk_full(server, projects[name]):
        refused = label(server, name, ["never"])
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
    assert label(server, name, [f"after-{name}"]).status_code == 200
    found = stored(server, projects[name], "labels")
    assert found[f"after-{name}"] == 1
    assert "never" not in found
