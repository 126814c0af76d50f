"""A disk that hangs, or is slow, holds up what needs it, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from serving_kit import PATIENCE, Server, add_version, make_project, publish, running

from homeostat.settings import Settings

ROW = [1.0, 2.0, 3.0, 4.0]
# by a connection of its own each
CALLER = httpx.Client(
    timeout=PATIENCE, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
)
JOURNAL = """[journal]
commit_every = "1h"
block_for = "300ms"
durability = "{durability}"
when_full = "{when_full}"
"""
# Every interpreter imports it: a call on a spool file takes so long, or lasts while the file is
# there. It stands for the disk; what the server does about it is its own.
SITE = """
import os, time

def slowed(name):
    real, told = getattr(os, name), os.environ["SLOW_DISK"]

    def call(what, *rest, **more):
        place = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)
        began = time.monotonic()
        while place.endswith(".arrows"):
            try:
                slow, seconds = open(told).read().split()
            except (OSError, ValueError):
                break
            if slow != name or time.monotonic() - began > float(seconds):
                break
            time.sleep(0.005)
        return real(what, *rest, **more)

    setattr(os, name, call)

for name in ("open", "write", "fsync"):
    slowed(name)
"""


@dataclass(frozen=True)
class Disk:
    told: Path

    @contextmanager
    def slow(self, call: str, seconds: float = float("inf")) -> Iterator[None]:
        scratch = self.told.with_suffix(".new")
        scratch.write_text(f"{call} {seconds}")
        scratch.replace(self.told)
        try:
            yield
        finally:
            self.told.unlink()


@contextmanager
def slow_server(
    folder: Path, durability: str, when_full: str = "block"
) -> Iterator[tuple[Server, Settings, Disk]]:
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    project = make_project(
        folder / "project", JOURNAL.format(durability=durability, when_full=when_full)
    )
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    disk = Disk(folder / "slow-disk")
    environ = {"SLOW_DISK": str(disk.told), "PYTHONPATH": str(site)}
    with running(project.project, environ=environ) as server:
        yield server, project, disk


def post(
    server: Server, pool: ThreadPoolExecutor, path: str, body: object
) -> Future[httpx.Response]:
    return pool.submit(lambda: CALLER.post(f"{server.url}{path}", json=body))


def labels(number: int) -> dict[str, object]:
    return {"labels": [{"id": f"a-{number}", "value": "star"}]}


def queued(server: Server) -> int:
    return int(server.about()["queued_rows"])


def test_labels_that_wait_for_a_disk_are_bounded_and_hold_up_nothing_else(tmp_path: Path) -> None:
    """Past a bound, callers are told when to come again; versions load and answers go out; and
    what was let in is stored when the disk is back."""
    with slow_server(tmp_path, "spool") as (server, project, disk), ThreadPoolExecutor(80) as pool:
        two = add_version(project, 2, runtime="onnx")
        with disk.slow("fsync"):
            sent = [post(server, pool, "/labels", labels(number)) for number in range(80)]
            server.wait_for(lambda: sum(each.done() for each in sent) >= 80 - 64)
            publish(project, two, epoch=2)
            server.wait_for_version(2)
            assert server.predict([ROW]).status_code == 200
        answers = [each.result() for each in sent]
        refused = [answer for answer in answers if answer.status_code == 503]
        assert len(refused) == 80 - 64
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        assert sum(answer.status_code == 200 for answer in answers) == 64
        assert "homeostat_labels_total" in server.http.get("/metrics").text
        assert server.http.post("/labels", json=labels(81)).status_code == 200


def test_too_many_labels_at_once_are_refused(tmp_path: Path) -> None:
    """With what to do instead; as many as may be are stored."""
    project = make_project(tmp_path)
    with running(project.project, wait=False) as server:
        entries = [{"id": str(number), "value": 1} for number in range(100_001)]
        refused = server.http.post("/labels", content=json.dumps({"labels": entries}))
        assert refused.status_code == 413
        assert "at most 100000" in refused.json()["detail"]
        taken = server.http.post("/labels", content=json.dumps({"labels": entries[1:]}))
        assert taken.json() == {"stored": 100_000}


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_hung_disk_is_told_to_those_who_wait_behind_it(tmp_path: Path, call: str) -> None:
    """The rows it holds are answered when it is back; what came after them is refused in time, and
    is not in the log; and nothing else of the server notices."""
    with slow_server(tmp_path, "sync") as (server, _, disk), ThreadPoolExecutor(2) as pool:
        with disk.slow(call):
            first = post(server, pool, "/predict", {"rows": [ROW]})
            server.wait_for(lambda: queued(server) == 1)
            second = server.predict([ROW, ROW])
            assert second.status_code == 503
            assert second.json()["type"].endswith("journal-unavailable")
            assert "its disk may hang" in second.json()["detail"]
            assert server.http.get("/metrics").status_code == 200
            assert server.http.get("/health/ready").status_code == 200
            assert not first.done()
        assert first.result().status_code == 200
        assert server.http.post("/models/shapes/flush").json() == {"received": 1, "stored": 1}


def test_a_hung_disk_keeps_nobody_waiting_whose_rows_may_be_dropped(tmp_path: Path) -> None:
    """With drop, what comes after the rows that it holds is answered in time, is not in the log,
    and is counted; a version that waits to be swapped in is, and the counters add up."""
    with (
        slow_server(tmp_path, "sync", "drop") as (server, project, disk),
        ThreadPoolExecutor(20) as pool,
    ):
        with disk.slow("fsync"):
            first = post(server, pool, "/predict", {"rows": [ROW]})
            server.wait_for(lambda: queued(server) == 1)
            behind = [post(server, pool, "/predict", {"rows": [ROW] * 2}) for _ in range(16)]
            answers = [each.result() for each in behind]
            assert {answer.status_code for answer in answers} == {200}
            assert all(len(answer.json()["ids"]) == 2 for answer in answers)
            assert queued(server) == 1
            publish(project, add_version(project, 2, runtime="onnx"), epoch=2)
            server.wait_for_version(2)
            assert not first.done()
        assert first.result().status_code == 200
        assert server.predict([ROW]).status_code == 200
        assert server.http.post("/models/shapes/flush").json() == {"received": 2, "stored": 2}
        counts = {name: counted(server, name) for name in ("received", "stored", "dropped")}
        assert counts == {"received": 34, "stored": 2, "dropped": 32}


@pytest.mark.parametrize("when_full", ["block", "drop"])
def test_with_async_no_answer_waits_for_a_disk_that_hangs(tmp_path: Path, when_full: str) -> None:
    """Rows wait in memory, from the first write that hangs on, and are stored when it is back."""
    with slow_server(tmp_path, "async", when_full) as (server, _, disk):
        with disk.slow("write"):
            assert {server.predict([ROW]).status_code for _ in range(20)} == {200}
            assert server.http.get("/health/ready").status_code == 200
            assert counted(server, "stored") == 0
        flushed = server.http.post("/models/shapes/flush").json()
        assert flushed == {"received": 20, "stored": 20}


def counted(server: Server, name: str) -> float:
    lines = server.http.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith(f"homeostat_journal_{name}_total{{")]
    return sum(float(line.split()[-1]) for line in found)


def test_after_a_slow_write_the_event_loop_waits_for_no_disk(tmp_path: Path) -> None:
    """The first slow one is felt; from then on a disk that hangs holds up predictions alone."""
    with slow_server(tmp_path, "spool") as (server, _, disk), ThreadPoolExecutor(2) as pool:
        with disk.slow("write", 0.2):
            assert server.predict([ROW]).status_code == 200
        with disk.slow("write"):
            held = post(server, pool, "/predict", {"rows": [ROW]})
            server.wait_for(lambda: queued(server) == 1)
            assert server.predict([ROW]).status_code == 503
            assert server.http.get("/metrics").status_code == 200
            assert not held.done()
        assert held.result().status_code == 200
