"""What happens to requests that share a batch when something in it goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from prometheus_client import CollectorRegistry
from serving_kit import CLASSES

from homeostat.auth import Keyring
from homeostat.errors import HomeostatError, JournalUnavailable, ModelError
from homeostat.metrics import Instruments
from homeostat.model_runtime.contract import LoadedModel
from homeostat.model_runtime.loading import load as load_model
from homeostat.records import Feature, ModelSpec, Task, VersionRef
from homeostat.registry.cache import model_folder
from homeostat.settings import load
from serving.journal import journal_writer
from serving.measuring import Measuring
from serving.problem import Overloaded, TooLarge
from serving.served_model import ServedModel, Version

WORDS = 10


class Fragile(torch.nn.Module):
    """Fails as a whole on a word it does not know; answers "not a number" to the last one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(WORDS, len(CLASSES))
        with torch.no_grad():
            self.words.weight[WORDS - 1] = torch.nan

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.words(rows).sum(1)


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    entry = tmp_path_factory.mktemp("cache") / "1"
    path = model_folder(entry) / "data" / "model.pt2"
    path.parent.mkdir(parents=True)
    program = torch.export.export(
        Fragile().eval(),
        (torch.zeros(3, 2, dtype=torch.int64),),
        dynamic_shapes=({0: torch.export.Dim("rows")},),
    )
    torch.export.save(program, path)
    spec = ModelSpec(
        model="words",
        version="1",
        runtime="torch",
        task=Task.CLASSIFICATION,
        features=tuple(Feature(name=name, integer=True) for name in ("first", "second")),
        tensor_shape=(2,),
        tensor_dtype="int64",
    )
    return load_model(entry, spec, embedding=None, classes=CLASSES, threads=1)


def served(folder: Path, journal: str = "") -> ServedModel:
    """`journal`: lines of that section of its settings."""
    (folder / "homeostat.toml").write_text(
        f'[model]\nname = "words"\n[journal]\ncommit_every = "1h"\n{journal}\n'
        "[serving]\nmax_batch_rows = 4\nmax_queued_rows = 20\n"
    )
    settings = load(folder, {})
    return ServedModel(
        settings=settings,
        keys=Keyring(),
        journal=journal_writer(settings, {}),
        measuring=Measuring(Instruments("server", CollectorRegistry()), "words", classes=True),
        now_us=lambda: 1_700_000_000_000_000,
    )


Answers = list[dict | HomeostatError]


async def ask(version: Version, requests: Sequence[list[list[int]]]) -> Answers:
    """All within one turn of the event loop, so that they share batches."""
    futures = []
    for rows in requests:
        body = json.dumps({"rows": rows}).encode()
        futures.append(version.batcher.submit(version.reader.read(body)))
    answers = await asyncio.gather(*futures, return_exceptions=True)
    await version.batcher.drained()
    return [json.loads(answer) if isinstance(answer, bytes) else answer for answer in answers]


def answers_of(
    model: ServedModel, loaded: LoadedModel, requests: Sequence[list[list[int]]]
) -> Answers:
    async def run() -> Answers:
        version = model.wrap(VersionRef(version="1", digest="0"), loaded, 0.0)
        return await ask(version, requests)

    return asyncio.run(run())


@pytest.mark.parametrize("durability", ["spool", "sync"])  # sync: in the model's own thread
def test_a_row_the_model_fails_on_fails_its_caller_alone(
    tmp_path: Path, fragile: LoadedModel, durability: str
) -> None:
    """The neighbours in the batch are answered and logged, the failed rows are not."""
    model = served(tmp_path, f'durability = "{durability}"')
    model.journal.start()
    good, unknown, not_a_number = [[1, 2]], [[1, WORDS + 5]], [[1, WORDS - 1]]
    answers = answers_of(model, fragile, [good, unknown, good, not_a_number, good])
    kinds = [type(answer) for answer in answers]
    assert kinds == [dict, ModelError, dict, ModelError, dict]
    assert model.journal.level().received == 3
    model.journal.close()


def test_answers_keep_their_callers_across_batches(tmp_path: Path, fragile: LoadedModel) -> None:
    """Requests of different sizes, one of them larger than a batch."""
    model = served(tmp_path)
    model.journal.start()
    requests = [[[i % 9, j % 9] for j in range(size)] for i, size in enumerate((1, 3, 2, 9, 1, 4))]
    together = answers_of(model, fragile, requests)
    alone = [answers_of(model, fragile, [rows])[0] for rows in requests]
    for joint, single in zip(together, alone, strict=True):
        assert isinstance(joint, dict)
        assert isinstance(single, dict)
        assert joint["predictions"] == single["predictions"]
    assert model.journal.level().received == 2 * 20
    model.journal.close()


def test_what_cannot_wait_is_told_at_once(tmp_path: Path, fragile: LoadedModel) -> None:
    """Past the limit callers are sent away; afterwards there is room again."""
    model = served(tmp_path)
    model.journal.start()

    async def run() -> None:
        version = model.wrap(VersionRef(version="1", digest="0"), fragile, 0.0)
        full = [[[1, 1]] * 10, [[1, 1]] * 10]
        waiting = asyncio.ensure_future(ask(version, full))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await ask(version, [[[1, 1]]])
        with pytest.raises(TooLarge):
            await ask(version, [[[1, 1]] * 21])
        assert all(isinstance(answer, dict) for answer in await waiting)
        assert all(isinstance(answer, dict) for answer in await ask(version, full))

    asyncio.run(run())
    model.journal.close()


@pytest.mark.parametrize(("when_full", "kind"), [("block", JournalUnavailable), ("drop", dict)])
def test_an_answer_that_cannot_be_logged(
    tmp_path: Path, fragile: LoadedModel, when_full: str, kind: type
) -> None:
    """Goes out only where the settings let rows be lost."""
    model = served(tmp_path, f'when_full = "{when_full}"\nblock_for = "100ms"')
    # its journal was never started: it takes nothing
    answers = answers_of(model, fragile, [[[1, 2]], [[3, 4]]])
    assert [type(answer) for answer in answers] == [kind, kind]
