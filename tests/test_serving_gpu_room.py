"""Room on a GPU: who leaves for whom, and who comes back. The card is one of numbers, since there
is none here; networks, cache and follower are real."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry
from serving_kit import MODEL, Network, add_version, make_project, publish

from homeostat.auth import Keyring
from homeostat.errors import ModelError, NotReady
from homeostat.metrics import Instruments
from homeostat.model_runtime.contract import LoadedModel
from homeostat.records import ModelSpec, Trial, TrialKind, VersionRef
from homeostat.registry.cache import entry_path, model_folder
from homeostat.settings import Settings
from homeostat.settings_of_serving import ServingSettings
from serving.counting.measuring import Measuring
from serving.versions.cached import load_version
from serving.versions.dispatch import dispatch
from serving.versions.follower import Follower
from serving.versions.gpu_room import left_on_gpu, memory_of
from serving.versions.journal import journal_writer
from serving.versions.served_model import ServedModel

GB = 1 << 30
ROWS = [[1.0, 2.0, 3.0, 4.0]]
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


class Card:
    """A GPU of so many bytes, of which every version takes four gigabytes, and one model on it;
    beside others, where these are given; `shared`: they are on the same GPU."""

    def __init__(
        self,
        folder: Path,
        size: int,
        runtime: str = "torch",
        *others: Card,
        shared: bool = False,
    ) -> None:
        self.size = size
        self.models: list[ServedModel] = others[0].models if shared else []
        self.loading: asyncio.Lock = others[0].loading if shared else asyncio.Lock()
        self.settings = make_project(folder, '[serving]\npoll = "20ms"\n')
        self.refs = {
            number: add_version(self.settings, number, runtime=runtime) for number in (1, 2, 3)
        }
        self.others = others
        self.broken: dict[str, str] = {}  # versions that do not load, and what their error says
        self.slow: dict[str, threading.Event] = {}  # versions whose load waits for these
        self.loads: list[str] = []
        self.asked = 0  # how often it was told how much is left
        self.model = ServedModel(
            settings=self.settings,
            keys=Keyring(),
            journal=journal_writer(self.settings, {}),
            measuring=Measuring(Instruments("server", CollectorRegistry()), MODEL, classes=True),
            now_us=lambda: 1_700_000_000_000_000,
        )
        self.models.append(self.model)
        models = [self.model, *(other.model for other in others)]
        self.follower = Follower(self.model, models, self.loading, load=self._load, left=self._left)
        self._epoch = 0

    def _load(self, settings: Settings, spec: ModelSpec) -> LoadedModel:
        self.loads.append(spec.version)
        if self._left(settings.serving, spec.runtime, 0) < 4 * GB:
            raise AssertionError(f"version {spec.version} is loaded where there is no room")
        if spec.version in self.slow:
            assert self.slow[spec.version].wait(60)
        if spec.version in self.broken:
            raise ModelError(self.broken[spec.version])
        loaded = load_version(settings, spec)
        counted: Any = loaded
        counted.memory_bytes = 4 * GB
        return loaded

    def _left(self, serving: ServingSettings, runtime: str, beside: int) -> int:
        self.asked += 1
        held = [version for model in self.models for version in model.versions]
        known = [each for each in held if each.model.spec.runtime == "torch"]
        return self.size - sum(map(memory_of, known)) - beside

    def promote(self, version: int, trial: Trial | None = None) -> None:
        self._epoch += 1
        publish(self.settings, self.refs[version], self._epoch, trial)

    async def follow(self, until: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not until():
                await self.follower.step()
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """As in a server, within the block."""
        task = asyncio.create_task(self.follower.follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def serves(self, version: int) -> None:
        def does() -> bool:
            current = self.model.current
            return current is not None and current.ref == self.refs[version]

        await self.follow(does)

    async def ask(self) -> str:
        body = json.dumps({"rows": ROWS}).encode()
        said = await dispatch(self.model, lambda version: version.reader.read(body))
        assert isinstance(said, bytes)
        told = json.loads(said)
        assert told["predictions"] == Network(int(told["version"])).expected(ROWS)[0]
        return str(told["version"])

    @property
    def held(self) -> list[str]:
        return [version.ref.version for version in self.model.versions]

    def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def all_of_it() -> None:
            try:
                await work()
            finally:
                for model in models:
                    await model.close()

        models = [self.model, *(other.model for other in self.others)]
        with contextlib.ExitStack() as stack:
            for model in models:
                model.journal.start()
                stack.callback(model.journal.close)
            asyncio.run(all_of_it())


def test_versions_that_fit_are_in_memory_together(tmp_path: Path) -> None:
    """Nobody leaves; of three, the one before goes first."""
    card = Card(tmp_path, 9 * GB)

    async def work() -> None:
        for version in (1, 2):
            card.promote(version)
            await card.serves(version)
        assert card.held == ["2", "1"]
        card.promote(3)
        await card.serves(3)
        assert card.held == ["3", "2"]

    card.run(work)
    assert card.loads == ["1", "2", "3"]


def test_what_other_models_hold_is_not_free(tmp_path: Path) -> None:
    """What ONNX Runtime has is in no account of torch's: it counts for every model of the server,
    whosever it is. Who makes room is the model itself."""
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    other = Card(tmp_path / "other", 9 * GB, "onnx")
    card = Card(tmp_path / "card", 9 * GB, "torch", other)

    async def work() -> None:
        other.promote(1)
        await other.serves(1)
        for version in (1, 2):
            card.promote(version)
            await card.serves(version)
        assert card.held == ["2"]
        assert other.held == ["1"]

    card.run(work)


def test_two_models_do_not_count_the_same_room(tmp_path: Path) -> None:
    """Both get a new version at the same moment, and only one more fits: what the first took is
    no room for the second, which therefore makes its own."""
    other = Card(tmp_path / "other", 13 * GB)
    card = Card(tmp_path / "card", 13 * GB, "torch", other, shared=True)

    async def work() -> None:
        for version in (1, 2):
            for each in (card, other):
                each.promote(version)
            async with asyncio.TaskGroup() as group:
                for each in (card, other):
                    group.create_task(each.serves(version))
        assert sorted([card.held, other.held]) == [["2"], ["2", "1"]]

    card.run(work)
    assert card.loads == other.loads == ["1", "2"]


def test_the_one_that_serves_leaves_for_its_successor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where two do not fit, and it is said."""
    card = Card(tmp_path, 5 * GB)

    async def work() -> None:
        for version in (1, 2):
            card.promote(version)
            await card.serves(version)
        assert card.held == ["2"]
        assert await card.ask() == "2"

    card.run(work)
    assert "version 1 leaves the GPU's memory, to make room for version 2" in caplog.text
    assert "nothing serves until that one is loaded" in caplog.text


def test_a_version_on_trial_makes_nobody_leave_who_serves(tmp_path: Path) -> None:
    """The one before does; where that is not enough, the trial has to do with what there is."""
    card = Card(tmp_path, 8 * GB)
    trial = Trial(version=card.refs[3], kind=TrialKind.SHADOW, share=1.0)

    async def work() -> None:
        for version in (1, 2):
            card.promote(version)
            await card.serves(version)
        card.promote(2, trial)
        await card.follow(lambda: card.model.trial is not None)
        assert card.held == ["2", "3"]
        assert await card.ask() == "2"

    card.run(work)


def test_the_one_that_left_in_vain_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its successor does not load: it serves again, and the reason stays. It does not leave for
    the same one again, whose tries go on, and end once there is room for both."""
    card = Card(tmp_path, 5 * GB)
    card.broken["2"] = "CUDA error: out of memory"

    async def work() -> None:
        card.promote(1)
        await card.serves(1)
        card.promote(2)
        await card.follow(lambda: card.loads == ["1", "2", "1"])
        assert await card.ask() == "1"
        assert card.model.problem == "version 2: CUDA error: out of memory"
        assert "version 1 serves again: version 2: CUDA error" in caplog.text
        await card.follow(lambda: "does not leave for it again" in str(card.model.problem))
        assert card.model.problem.startswith("version 2: CUDA error: out of memory; the one before")
        assert card.loads == ["1", "2", "1"]
        assert card.model.epoch == 1
        card.broken.clear()
        card.size = 9 * GB
        await card.serves(2)
        assert card.held == ["2", "1"]
        assert card.model.problem is None

    card.run(work)


def test_another_promotion_is_another_try(tmp_path: Path) -> None:
    """A rollback takes the order back; the next one may make the champion leave again."""
    card = Card(tmp_path, 5 * GB)
    card.broken["2"] = "not now"

    async def work() -> None:
        card.promote(1)
        await card.serves(1)
        card.promote(2)
        await card.follow(lambda: card.model.current is not None and len(card.loads) == 3)
        card.promote(1)
        await card.follow(lambda: card.model.epoch == 3)
        assert card.model.problem is None
        card.broken.clear()
        card.promote(2)
        await card.serves(2)
        assert await card.ask() == "2"

    card.run(work)


def test_neither_loads_for_a_while(tmp_path: Path) -> None:
    """Requests are told both reasons; both are tried until one is there."""
    card = Card(tmp_path, 5 * GB)

    async def work() -> None:
        card.promote(1)
        await card.serves(1)
        card.broken |= {"1": "the driver hangs", "2": "the GPU is lost"}
        card.promote(2)
        await card.follow(lambda: card.loads == ["1", "2", "1"])
        with pytest.raises(NotReady, match=r"the GPU is lost; version 1.*the driver hangs"):
            await card.ask()
        card.promote(1)
        await card.follower.step()
        assert card.loads == ["1", "2", "1", "1"], "it is not brought back in its own place"
        assert card.model.problem == "version 1: the driver hangs"
        card.promote(2)
        del card.broken["1"]
        await card.serves(1)
        assert await card.ask() == "1"

    card.run(work)


def test_nobody_leaves_for_what_was_taken_back(tmp_path: Path) -> None:
    """A promotion waits for another model's load, and is taken back before its turn comes."""
    card = Card(tmp_path, 5 * GB)

    async def work() -> None:
        card.promote(1)
        await card.serves(1)
        async with card.following(), asyncio.timeout(60):
            async with card.loading:
                asked = card.asked
                card.promote(2)
                while card.asked == asked:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.05)  # from there to the lock
                card.promote(1)
                while card.model.epoch != 3:
                    await asyncio.sleep(0.01)
            while card.loading.locked():
                await asyncio.sleep(0.01)
            assert await card.ask() == "1"

    card.run(work)
    assert card.loads == ["1"]


def test_the_one_that_left_comes_back_when_that_is_taken_back(tmp_path: Path) -> None:
    """While its successor is loaded: that one is closed, which makes room, and never serves."""
    card = Card(tmp_path, 5 * GB)
    card.slow["2"] = threading.Event()

    async def work() -> None:
        card.promote(1)
        await card.serves(1)
        async with card.following(), asyncio.timeout(60):
            card.promote(2)
            while card.loads != ["1", "2"]:
                await asyncio.sleep(0.01)
            assert card.held == []
            card.promote(1)
            card.slow["2"].set()
            while not card.held:
                await asyncio.sleep(0.001)
            assert await card.ask() == "1"
            assert card.model.epoch == 3

    card.run(work)
    assert card.loads == ["1", "2", "1"]


@pytest.mark.parametrize("harm", ["changed", "not fetched"])
def test_nobody_leaves_for_what_is_not_sound(tmp_path: Path, harm: str) -> None:
    """Files are there, and looked at, before anything leaves."""
    card = Card(tmp_path, 5 * GB)

    async def work() -> None:
        card.promote(1)
        await card.serves(1)
        if harm == "changed":
            folder = model_folder(entry_path(card.settings.cache_path, MODEL, "2"))
            (folder / "data" / "model.pt2").write_bytes(b"something else")
        else:
            card.refs[2] = VersionRef(version="77", digest="0" * 64)
        card.promote(2)
        await card.follow(lambda: card.model.problem is not None)
        assert card.held == ["1"]
        assert await card.ask() == "1"

    card.run(work)
    assert card.loads == ["1"]


@without_gpu
@pytest.mark.parametrize("runtime", ["torch", "onnx", "pyfunc"])
def test_no_room_is_looked_for_where_nothing_goes(tmp_path: Path, runtime: str) -> None:
    """On a CPU, and of what runs in a process of its own; a GPU that is asked for and is not there
    is an error before anybody leaves."""
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    for device in ("cpu", "auto"):
        serving = make_project(tmp_path, f'[serving]\ndevice = "{device}"\n').serving
        assert left_on_gpu(serving, runtime, 0) is None
    if runtime != "pyfunc":
        serving = make_project(tmp_path, '[serving]\ndevice = "cuda"\n').serving
        with pytest.raises(ModelError, match=r'serving\.device is "cuda"'):
            left_on_gpu(serving, runtime, 0)
