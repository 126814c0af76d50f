"""One process's share of a run: parts read, answered and written."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from homeostat.errors import InputError, ModelError
from homeostat.identifiers import LONGEST_ID, uuid7_series
from homeostat.jobs import write_atomically
from homeostat.journal.batch_log import PartRows
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.recording import Recording
from homeostat.journal.reading.request import BATCH
from homeostat.model_runtime.contract import Batch, LoadedModel, Outputs
from homeostat.model_runtime.loading import load
from homeostat.model_runtime.placement import placement_of
from homeostat.records import FeatureKind, to_json
from homeostat.registry.cache import entry_path, verify
from homeostat.scoring.answering import answered
from homeostat.scoring.answers import Layout, PartFile, part_file
from homeostat.scoring.job import Job, PartDone, Places
from homeostat.scoring.parts import BadRow, Block, Input, Part
from homeostat.scoring.signature import Signature, chosen
from homeostat.settings import Settings

BLOCK_ROWS = 8192  # of a table read at once, and at most in one call of the model


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that a process needs to do parts of a run."""

    job: Job
    places: Places
    source: Input
    settings: Settings
    recording: Recording


class Worker:
    """Raises ModelError or InputError at once where version, input and options do not fit."""

    def __init__(self, work: Work, threads: int) -> None:
        self._work = work
        self.model = load_version(work.settings, work.job, threads)
        spec, options, schema = self.model.spec, work.job.options, work.source.schema
        try:
            self.signature = Signature(spec, schema, tensor=options.tensor)
            self.layout = Layout(options, spec, schema, self.signature.taken)
            if options.id_column is not None and options.id_column not in schema.names:
                raise InputError(f'--id-column: the input has no column "{options.id_column}"')
        except BaseException:
            self.model.close()
            raise
        self._reader = work.source.open()

    def do(self, part: Part) -> PartDone:
        """What an earlier try left of the part is replaced."""
        started, work = time.perf_counter(), self._work
        scored = _Scored(self, work, part)
        with part_file(work.places.part(part.name)) as file:
            for block in self._reader.blocks(part, BLOCK_ROWS):
                scored.add(block, file)
            scored.write()
        return PartDone(
            number=part.number,
            name=part.name,
            size=part.size,
            rows=scored.rows,
            bad=len(scored.bad),
            seconds=time.perf_counter() - started,
        )

    @property
    def on_gpu(self) -> bool:
        """As far as we know: what runs in a process of its own does as it likes."""
        return bool(getattr(self.model, "on_gpu", False))

    def close(self) -> None:
        self.model.close()


class _Scored:
    """One part, block by block."""

    def __init__(self, worker: Worker, work: Work, part: Part) -> None:
        self._model, self._layout, self._signature = worker.model, worker.layout, worker.signature
        self._work, self._part = work, part
        self._blocks = 0
        self.rows = 0
        self.bad: list[BadRow] = []
        self._log = PartRows(worker.model.spec.task, work.recording)

    def add(self, block: Block, file: PartFile) -> None:
        self.rows += len(block.rows) + len(block.bad)
        self.bad += block.bad
        self._blocks += 1
        if not len(block.batch):
            return
        started = time.perf_counter()
        taken = self._signature.rows(block)
        found = answered(self._model, taken.batch)
        seconds = time.perf_counter() - started
        self.bad += taken.bad
        self.bad += [
            BadRow(row=block.rows[int(taken.places[place])], column="", problem=problem)
            for place, problem in found.refused
        ]
        if found.outputs is None:
            return
        places = taken.places[found.places]
        ids = self._ids(block, places)
        file.write(self._layout.table(block.batch, places, ids, found.outputs))
        if self._work.job.options.log:
            rows = chosen(taken.batch, found.places)
            self._log.add(self._logged(ids, rows, found.outputs, seconds))

    def write(self) -> None:
        """What stands beside the answers: the bad rows, and what is to be logged."""
        places, name = self._work.places, self._part.name
        if self.bad and self._work.job.options.strict:
            first = min(self.bad, key=lambda bad: bad.row)
            raise InputError(
                f"{self._work.source.files[self._part.file]}, in the part {name}, row {first.row}: "
                f"{first.problem}; without --strict such rows are only reported"
            )
        if self.bad:
            lines = [to_json(bad) for bad in sorted(self.bad, key=lambda bad: bad.row)]
            write_atomically(places.bad(name), b"\n".join([*lines, b""]))
        if self._work.job.options.log:
            self._log.write(places.log(name))

    def _ids(self, block: Block, places: Sequence[int]) -> list[str]:
        """The caller's own, else ones that the same row gets again when it is scored again."""
        job = self._work.job
        if job.options.id_column is not None:
            given = block.batch.column(job.options.id_column).take(list(places)).to_pylist()
            ids = ["" if each is None else str(each) for each in given]
            wrong = next((id_ for id_ in ids if not 0 < len(id_) <= LONGEST_ID), None)
            if wrong is not None:
                raise InputError(
                    f'the column "{job.options.id_column}" holds {wrong[:50]!r}: an id has 1 to '
                    f"{LONGEST_ID} characters"
                )
            return ids
        seed = f"{job.run} {self._part.name} {self._blocks}".encode()
        noise = hashlib.shake_256(seed).digest(10 * len(places))
        return uuid7_series(len(places), job.started_ms, noise)

    def _logged(
        self, ids: list[str], rows: Batch, outputs: Outputs, seconds: float
    ) -> PredictionBatch:
        spec = self._model.spec
        return PredictionBatch(
            ids=ids,
            time_us=time.time_ns() // 1000,
            version=spec.version,
            role=BATCH,
            features=spec.names,
            matrix=rows.matrix,
            tensor=spec.tensor_shape is not None,
            columns=rows.columns,
            categories=frozenset(
                feature.name for feature in spec.features if feature.kind is FeatureKind.CATEGORY
            ),
            predictions=outputs.predictions,
            probabilities=outputs.probabilities,
            embedding=outputs.embedding,
            latency_us=int(seconds * 1e6),
        )


def load_version(settings: Settings, job: Job, threads: int) -> LoadedModel:
    """The version from the cache, as it was when the run began; raises IntegrityError."""
    entry = entry_path(settings.cache_path, job.model, job.version.version)
    spec = verify(entry, job.version.digest)
    if spec.task is not settings.model.task:
        raise ModelError(
            f"version {spec.version} is for {spec.task}, the project for {settings.model.task}"
        )
    return load(
        entry,
        spec,
        embedding=settings.serving.embedding,
        classes=settings.model.classes,
        threads=threads,
        placement=placement_of(settings.serving),
    )
