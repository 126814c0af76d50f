"""A model in a process of its own that hangs, dies or is slow holds up its queue no longer than it
must."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from serving_kit import PATIENCE
from words_kit import Answers, Served, all_well, answered

from homeostat.model_runtime.contract import LoadedModel
from homeostat.model_runtime.pyfunc import load_pyfunc
from homeostat.records import Feature, ModelSpec, Task
from serving.requests.asked import Asked
from serving.requests.problem import Overdue

ML_MODEL = """flavors:
  python_function:
    code: code
    data: data
    loader_module: moody
    python_version: 3.11.0
"""
# It answers each row with its sum as a class, writes down how many rows it was asked for, and does
# to a batch what the first number of any of its rows says.
MOODY = """
import os, pathlib, time

RAISE, DIE, HANG, SLOW = 1001, 1002, 1003, 1004

class Moody:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def predict(self, rows):
        with (self.folder / "calls").open("a") as calls:
            calls.write(f"{len(rows)}\\n")
        moods = set(rows[:, 0].tolist())
        if HANG in moods:
            time.sleep(3600)
        if DIE in moods:
            os._exit(9)
        if RAISE in moods:
            raise ValueError("not these")
        while SLOW in moods and not (self.folder / "go-on").exists():
            time.sleep(0.01)
        return rows.sum(1).astype(int)

def _load_pyfunc(folder):
    with (pathlib.Path(folder) / "starts").open("a") as starts:
        starts.write("1\\n")
    if (pathlib.Path(folder) / "broken").exists():
        raise ValueError("its file is broken")
    return Moody(folder)
"""
RAISE, DIE, HANG, SLOW = 1001, 1002, 1003, 1004
SECONDS = 10.0  # that it may take over a batch; a hang costs the test as much


class Moody:
    """The model, and the event loop on which it is served."""

    def __init__(self, folder: Path, served: Served, runner: asyncio.Runner) -> None:
        self.data = folder / "data"
        self.data.mkdir()
        self.served = served
        self.runner = runner
        self._known: dict[str, int] = {}  # lines of each file
        (folder / "code").mkdir()
        (folder / "code" / "moody.py").write_text(MOODY)
        (folder / "MLmodel").write_text(ML_MODEL)
        spec = ModelSpec(
            model="words",
            version="1",
            runtime="pyfunc",
            task=Task.CLASSIFICATION,
            features=(Feature(name="first"), Feature(name="second")),
            tensor_shape=(2,),
        )
        self.loaded: LoadedModel = load_pyfunc(
            folder, spec, embedding=None, classes=(), threads=1, seconds=SECONDS
        )

    def told(self, what: str) -> list[int]:
        """Of its "calls" how many rows each had, or one for each of its "starts"; since it was
        asked for last."""
        path = self.data / what
        lines = path.read_text().splitlines() if path.exists() else []
        told = [int(line) for line in lines[self._known.get(what, 0) :]]
        self._known[what] = len(lines)
        return told

    def outcomes(self, moods: Sequence[int]) -> list[str]:
        """Of a batch with a request for each. No two are equal."""
        requests = [[[mood, place]] for place, mood in enumerate(moods)]
        answers = self.runner.run(self.served.ask(*requests))
        return ["answered" if isinstance(each, dict) else type(each).__name__ for each in answers]


@pytest.fixture(scope="module")
def served_moody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moody]:
    served = Served(tmp_path_factory.mktemp("project"), most=64)
    served.model.journal.start()
    with asyncio.Runner() as runner:
        model = Moody(tmp_path_factory.mktemp("moody"), served, runner)

        async def serve() -> None:
            served.serve(model.loaded)

        runner.run(serve())
        yield model
        runner.run(served.model.close())
    served.model.journal.close()


@pytest.fixture
def moody(served_moody: Moody) -> Moody:
    """With a worker that lives, and nothing told."""
    assert served_moody.outcomes([0]) == ["answered"]
    served_moody.told("calls"), served_moody.told("starts")
    return served_moody


def but_one(mood: int, place: int, count: int) -> list[int]:
    return [mood if each == place else 0 for each in range(count)]


def failed_but_one(place: int, count: int) -> list[str]:
    return ["ModelError" if each == place else "answered" for each in range(count)]


def test_a_bad_row_is_found_in_few_calls(moody: Moody) -> None:
    """Two for each time that a batch can be halved; its neighbours are answered."""
    assert moody.outcomes(but_one(RAISE, 37, 64)) == failed_but_one(37, 64)
    calls = moody.told("calls")
    assert calls[0] == 64
    assert len(calls) <= 1 + 2 * 6
    assert not moody.told("starts")


def test_a_row_that_ends_the_worker_is_found_in_few_starts(moody: Moody) -> None:
    """And its neighbours are answered."""
    assert moody.outcomes(but_one(DIE, 37, 64)) == failed_but_one(37, 64)
    assert len(moody.told("starts")) == 3
    assert len(moody.told("calls")) < 64 / 2


def test_a_model_that_dies_again_and_again_is_left_alone(moody: Moody) -> None:
    """For the rest of the batch, however many are in it. The next batch finds a new worker."""
    assert moody.outcomes([DIE] * 64) == ["ModelError"] * 64
    assert len(moody.told("starts")) == 3
    assert moody.outcomes([0]) == ["answered"]


def test_a_model_that_hangs_is_not_asked_again(moody: Moody) -> None:
    """For the same batch: those that wait behind it are answered by a new worker."""
    assert moody.outcomes(but_one(HANG, 3, 64)) == ["ModelError"] * 64
    assert moody.told("calls") == [64]
    assert moody.outcomes([0, 0]) == ["answered"] * 2
    assert moody.told("starts") == [1]


def test_a_model_that_does_not_start_again_is_not_started_for_each_request(moody: Moody) -> None:
    """But once for a batch, so that it is answered again once its trouble is over."""
    broken = moody.data / "broken"
    broken.touch()
    try:
        assert moody.outcomes(but_one(DIE, 3, 16)) == ["ModelError"] * 16
    finally:
        broken.unlink()
    assert moody.told("starts") == [1]
    assert moody.outcomes([0]) == ["answered"]


def test_who_is_overdue_behind_a_model_at_work_is_told_so_meanwhile(moody: Moody) -> None:
    """And is not computed; those with time left are answered when it is free."""
    served, go_on = moody.served, moody.data / "go-on"

    async def work() -> Answers:
        slow = served.submit([[SLOW, 0]])
        async with asyncio.timeout(PATIENCE):
            while not moody.told("calls"):
                await asyncio.sleep(0.01)
        now = asyncio.get_running_loop().time()
        short, long = (served.submit([[1, 1]], Asked(until=now + more)) for more in (0.1, 60))
        plain = served.submit([[1, 2]])
        slow.add_done_callback(lambda _: over.append(slow))
        try:
            with pytest.raises(Overdue):
                await short
            assert not over
        finally:
            go_on.touch()
        return await answered([slow, long, plain])

    over: list[object] = []
    all_well(moody.runner.run(work()))
    assert sum(moody.told("calls")) == 2
