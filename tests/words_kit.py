"""A model of two words that fails on words it does not know, served within the test's process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import torch
from deltalake import DeltaTable
from prometheus_client import CollectorRegistry, generate_latest
from serving_kit import CLASSES

from homeostat.auth import Keyring
from homeostat.metrics import Instruments
from homeostat.model_runtime.contract import LoadedModel
from homeostat.model_runtime.loading import load as load_model
from homeostat.records import Feature, ModelSpec, Rollout, Task, Trial, VersionRef
from homeostat.registry.cache import model_folder
from homeostat.settings import load
from serving.batching.batcher import Batcher
from serving.counting.measuring import Measuring
from serving.requests.asked import Asked
from serving.requests.later import Later
from serving.tracing.tracing import Tracing
from serving.versions.dispatch import dispatch
from serving.versions.journal import journal_writer
from serving.versions.served_model import ServedModel, Version

WORDS = 10
T = TypeVar("T")
Answers = list[dict[str, Any] | BaseException]


class Fragile(torch.nn.Module):
    """Fails as a whole on a word it does not know; answers "not a number" to the last one."""

    def __init__(self, version: int, words: int) -> None:
        super().__init__()
        torch.manual_seed(version)
        self.words = torch.nn.Embedding(words, len(CLASSES))
        with torch.no_grad():
            self.words.weight[WORDS - 1] = torch.nan

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.words(rows).sum(1)
        return scores


def load_words(
    folder: Path,
    version: int = 1,
    words: int = WORDS,
    features: tuple[str, str] = ("first", "second"),
) -> LoadedModel:
    """`words`: how many it knows."""
    entry = folder / str(version)
    path = model_folder(entry) / "data" / "model.pt2"
    path.parent.mkdir(parents=True)
    program = torch.export.export(
        Fragile(version, words).eval(),
        (torch.zeros(3, 2, dtype=torch.int64),),
        dynamic_shapes=({0: torch.export.Dim("rows")},),
    )
    torch.export.save(program, path)
    spec = ModelSpec(
        model="words",
        version=str(version),
        runtime="torch",
        task=Task.CLASSIFICATION,
        features=tuple(Feature(name=name, integer=True) for name in features),
        tensor_shape=(2,),
        tensor_dtype="int64",
    )
    return load_model(entry, spec, embedding=None, classes=CLASSES, threads=1)


class Served:
    """The model "words" in a folder, and what its server counts."""

    def __init__(
        self,
        folder: Path,
        journal: str = "",
        serving: str = "",
        tracing: Tracing | None = None,
        most: int = 4,
    ) -> None:
        """`journal`, `serving`: lines of those sections of its settings. `most`: rows in a batch;
        five times as many may wait."""
        (folder / "homeostat.toml").write_text(
            f'[model]\nname = "words"\n[journal]\ncommit_every = "1h"\n{journal}\n'
            f"[serving]\nmax_batch_rows = {most}\nmax_queued_rows = {5 * most}\n{serving}\n"
        )
        self.settings = load(folder, {})
        self.registry = CollectorRegistry()
        self.model = ServedModel(
            settings=self.settings,
            keys=Keyring(),
            journal=journal_writer(self.settings, {}),
            measuring=Measuring(Instruments("server", self.registry), "words", classes=True),
            now_us=lambda: 1_700_000_000_000_000,
            tracing=tracing,
        )

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """On an event loop, with the journal started; all of it is in the tables afterwards."""

        async def all_of_it() -> T:
            try:
                return await work()
            finally:
                await self.model.close()

        self.model.journal.start()
        try:
            return asyncio.run(all_of_it())
        finally:
            self.model.journal.close()

    def serve(
        self,
        champion: LoadedModel,
        *,
        previous: LoadedModel | None = None,
        trial: tuple[LoadedModel, Trial] | None = None,
    ) -> None:
        """What its follower does, from within `run`."""
        for epoch, loaded in enumerate(each for each in (previous, champion) if each):
            version = self.version(loaded)
            self.model.swap(
                version,
                Rollout(
                    model="words",
                    epoch=epoch + 1,
                    champion=version.ref,
                    trial=trial[1] if trial else None,
                    created_at=datetime.now(UTC),
                ),
            )
        if trial:
            self.model.try_out(self.version(trial[0]))

    def version(self, loaded: LoadedModel) -> Version:
        return self.model.wrap(ref_of(loaded), loaded, 0.0)

    async def ask(
        self, *requests: Sequence[Sequence[object]], name: str | None = None, **members: object
    ) -> Answers:
        """All within one turn of the event loop, so that they share batches."""
        told = [self.submit(rows, None, name, **members) for rows in requests]
        return await answered(told)

    def submit(
        self,
        rows: Sequence[Sequence[object]],
        asked: Asked | None = None,
        name: str | None = None,
        **members: object,
    ) -> Later[Any]:
        body = json.dumps({"rows": rows, **members}).encode()
        return dispatch(self.model, lambda version: version.reader.read(body), asked, name)

    def submit_to(
        self, queue: Batcher, version: Version, rows: Sequence[Sequence[object]]
    ) -> Later[Any]:
        return queue.submit(version.reader.read(json.dumps({"rows": rows}).encode()))

    def count(self, name: str, **labels: str) -> float:
        """A metric's sum over the series that have these labels."""
        self.model.measuring.refresh(0, self.model.journal.level(), datetime.now(UTC))
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.split()[-1])
            for line in generate_latest(self.registry).decode().splitlines()
            if line.startswith(f"{name}{{") and all(each in line for each in wanted)
        )

    def logged(self, columns: str) -> list[tuple[Any, ...]]:
        """Of all rows in the table, sorted."""
        files = DeltaTable(f"{self.settings.journal_path}/words/predictions").file_uris()
        found: list[tuple[Any, ...]] = duckdb.execute(
            f"select {columns} from read_parquet({files}, union_by_name = true) order by all"
        ).fetchall()
        return found


async def answered(told: Sequence[Later[Any]]) -> Answers:
    answers = await asyncio.gather(*told, return_exceptions=True)
    return [json.loads(answer) if isinstance(answer, bytes) else answer for answer in answers]


def all_well(answers: Answers) -> list[dict[str, Any]]:
    """Of requests none of which failed."""
    found = [answer for answer in answers if isinstance(answer, dict)]
    assert len(found) == len(answers), answers
    return found


def ref_of(loaded: LoadedModel) -> VersionRef:
    return VersionRef(version=loaded.spec.version, digest="0")
