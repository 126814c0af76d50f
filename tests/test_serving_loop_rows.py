"""How long the event loop waits for a model: for as many rows as it answers soon, and no more."""

from __future__ import annotations

import asyncio
import json
import select
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from serving_kit import (
    FEATURES,
    PATIENCE,
    Network,
    Server,
    add_version,
    make_project,
    publish,
    running,
)
from words_kit import Served, all_well, answered, load_words

from homeostat.errors import ModelError
from homeostat.model_runtime.contract import Batch, LoadedModel, Outputs
from homeostat.model_runtime.loop_rows import ROWS, loop_rows, most_rows
from homeostat.records import Feature, ModelSpec, Task
from serving.batching import batcher
from serving.versions.default_answer import DefaultAnswer

MANY = 8192


class Pairs(Network):
    """Compares each row with each: few are answered at once, a thousand in a tenth of a second."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        flat = rows.flatten(1)
        pairs = flat @ flat.T
        for _ in range(15):
            pairs = torch.tanh(pairs)
        return super().forward(rows) + 0 * pairs.sum(1, keepdim=True)


def test_others_are_answered_while_a_model_is_at_many_rows(tmp_path: Path) -> None:
    """A model that answers few rows at once gets as many as a request may have: health and another
    model's requests are answered meanwhile, and its own when it is done, in their order."""
    pairs, quick = make_project(tmp_path / "p", model="pairs"), make_project(tmp_path / "q")
    publish(pairs, add_version(pairs, 1, network=Pairs(1)), epoch=1)
    publish(quick, add_version(quick, 2, runtime="onnx"), epoch=1)
    body = json.dumps({"rows": [[1.0] * len(FEATURES)] * MANY}).encode()

    def meanwhile(server: Server) -> int:
        """How often others were answered."""
        url = httpx.URL(server.url)
        many = HTTPConnection(url.host, url.port, timeout=PATIENCE)
        many.putrequest("POST", "/models/pairs/predict")
        many.putheader("content-length", str(len(body)))
        many.endheaders(body[:-1])
        server.http.get("/health/live").raise_for_status()
        many.send(body[-1:])
        answered = 0
        while not select.select([many.sock], [], [], 0)[0]:
            server.http.get("/health/live").raise_for_status()
            asked = {"rows": [[1.0] * len(FEATURES)]}
            server.http.post(f"/models/{quick.model.name}/predict", json=asked).raise_for_status()
            answered += 1
        answer = many.getresponse()
        assert answer.status == 200
        assert len(json.loads(answer.read())["predictions"]) == MANY
        many.close()
        return answered

    with running(pairs.project, quick.project) as server:
        about = server.http.get("/models").json()["models"]
        told: dict[str, Any] = {each["name"]: each["serving"] for each in about}
        assert 0 < told["pairs"]["fast_paths"]["loop_rows"] < ROWS[-1]
        # of a hundred; on the event loop it would be one or two each time. A busy machine may give
        # the processors to the model alone
        assert any(meanwhile(server) > 4 for _ in range(10))


class Noting:
    """A loaded model, and where it was called with how many rows. Slower with more of them."""

    loop_rows = 2

    def __init__(self, model: LoadedModel) -> None:
        self.spec = model.spec
        self.calls: list[tuple[int, bool]] = []  # rows, and whether on the event loop
        self._model = model
        self._alone = threading.Lock()

    def predict(self, batch: Batch) -> Outputs:
        if not self._alone.acquire(blocking=False):
            raise ModelError("it is called by two at a time")
        try:
            self.calls.append((batch.rows, threading.current_thread() is threading.main_thread()))
            time.sleep(0.01 * batch.rows)
            return self._model.predict(batch)
        finally:
            self._alone.release()

    def close(self) -> None:
        self._model.close()


@pytest.mark.parametrize("durability", ["spool", "sync"])
def test_large_batches_go_to_the_thread_and_small_ones_do_not(
    tmp_path: Path, durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, in the order in which they came, wherever they are answered. Where each
    waits for the disk, the event loop answers none."""
    # a machine that is busy for so long would look like a slow disk, whose batches go to the thread
    monkeypatch.setattr(batcher, "SLOW", PATIENCE)
    served = Served(tmp_path, f'durability = "{durability}"')
    model = Noting(load_words(tmp_path / "words"))
    sizes, done = (1, 4, 2, 4, 1, 1, 3, 2), list[int]()

    async def work() -> list[dict[str, Any]]:
        served.serve(model)
        told = [served.submit([[number, 1]] * size) for number, size in enumerate(sizes)]
        for number, each in enumerate(told):
            each.add_done_callback(lambda _, number=number: done.append(number))  # type: ignore[misc]
        return all_well(await answered(told))

    answers = served.run(work)
    assert [len(answer["predictions"]) for answer in answers] == list(sizes)
    assert done == list(range(len(sizes)))
    small = durability == "spool"
    batches = [(1, small), (4, False), (2, small), (4, False), (2, small), (3, False), (2, small)]
    assert model.calls == batches
    assert len(served.logged("prediction_id")) == sum(sizes)


class Held(Noting):
    """Stays with more than two rows until it is let go."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__(model)
        self.entered, self.let_go = threading.Event(), threading.Event()

    def predict(self, batch: Batch) -> Outputs:
        if batch.rows > self.loop_rows:
            self.entered.set()
            assert self.let_go.wait(PATIENCE)
        return super().predict(batch)


def test_the_loop_does_not_wait_for_the_mirrors_batch(tmp_path: Path) -> None:
    """A version that is asked by name while a mirror's batch is in it: a small batch, which the
    loop would have answered itself, waits in a thread."""
    served = Served(tmp_path)
    model = Held(load_words(tmp_path / "words"))

    async def work() -> list[dict[str, Any]]:
        version = served.version(model)
        served.serve(model)
        mirrored = served.submit_to(version.mirror, version, [[1, 1]] * 4)
        while not model.entered.is_set():
            await asyncio.sleep(0.001)
        asked = served.submit_to(version.batcher, version, [[2, 1]])
        await asyncio.sleep(0.01)  # the loop is free, or this would not return before `let_go`
        assert model.calls == []
        model.let_go.set()
        return all_well(await answered([mirrored, asked]))

    assert len(served.run(work)) == 2
    assert model.calls == [(4, False), (1, False)]


def test_each_number_of_rows_is_tried() -> None:
    """What takes long at some number, or is refused there, counts up to the one before."""

    def slow_from(least: int) -> int:
        def predict(rows: int) -> None:
            if rows >= least:
                time.sleep(0.01)

        return loop_rows(MANY, int, predict)

    def refuses(rows: int) -> None:
        if rows > 256:
            raise ModelError("too many")

    assert [slow_from(1), slow_from(65), slow_from(500), slow_from(MANY)] == [0, 64, 256, 1024]
    assert loop_rows(MANY, int, refuses) == 256


def test_the_making_of_the_rows_is_not_timed() -> None:
    """It takes longer than most models do, where a row is an image."""
    assert loop_rows(MANY, lambda _rows: time.sleep(0.01), lambda _made: None) == ROWS[-1]


def test_the_larger_the_rows_the_fewer() -> None:
    """However soon the model answers: the event loop joins them and logs them too. No model is
    tried with many more than that, and rows of an ordinary size are as many as ever."""

    def quick(*shape: int, tensor: bool = True) -> tuple[int, int]:
        """Of these rows for the loop, and of those that the model was tried with."""
        spec = ModelSpec(
            model="quick",
            version="1",
            runtime="onnx",
            task=Task.CLASSIFICATION,
            features=() if tensor else tuple(Feature(name=f"x{i}") for i in range(shape[0])),
            tensor_shape=shape if tensor else None,
        )
        tried: list[int] = []
        found = loop_rows(most_rows(spec), int, tried.append)
        assert DefaultAnswer(spec, '"star"').loop_rows == most_rows(spec) >= found
        return found, max(tried, default=0)

    assert quick(32) == quick(32, tensor=False) == quick(150) == (1024, 1024)
    assert quick(1000) == quick(1000, tensor=False) == (160, 256)
    assert quick(3, 64, 64) == (13, 64)
    assert quick(3, 224, 224) == (1, 64)
    assert quick(3, 300, 300) == (0, 0)
