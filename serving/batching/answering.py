"""Joined rows -> the model -> the journal -> one encoded answer for each request."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

import msgspec
import numpy as np

from homeostat.errors import HomeostatError, InputError, JournalUnavailable, ModelAway, ModelError
from homeostat.identifiers import Identifiers
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.model_runtime.contract import Batch, LoadedModel, Outputs
from homeostat.records import FeatureKind
from serving.batching.apart import Apart
from serving.batching.contract import Journalling, Result, Said
from serving.batching.joining import ids_of, join, joined, part_of
from serving.batching.pace import Pace
from serving.counting.measuring import Measuring
from serving.requests.finite import is_finite
from serving.requests.forms import Piece
from serving.requests.parsing import Rows
from serving.rules.routing import Role

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode
TELL_EVERY = 10.0  # seconds between two lines about a journal that does not take predictions


class Answer(msgspec.Struct, omit_defaults=True):
    model: msgspec.Raw
    version: msgspec.Raw
    ids: Sequence[str]
    predictions: Sequence[str] | Sequence[float]
    probabilities: Sequence[Sequence[float]] | None = None
    classes: msgspec.Raw | None = None
    fallback: bool = False  # by another version than the one it should be, which fails


class Answering:
    """One version's way from rows to answers. Called by one thread at a time, and by one more while
    that one is held up by the journal."""

    def __init__(
        self,
        model: LoadedModel,
        journal: Journalling,
        measuring: Measuring,
        pace: Pace,
        *,
        must_log: bool,
        max_batch_rows: int,
        now_us: Callable[[], int],
    ) -> None:
        self._model = model
        self._journal = journal
        self._measuring = measuring
        self._observe = measuring.observing.of(model.spec)
        self._pace = pace
        self._must_log = must_log
        self._max_batch_rows = max_batch_rows
        self._now_us = now_us
        self._new_ids = Identifiers().make
        self._names = model.spec.names
        self._tensor = model.spec.tensor_shape is not None
        self._categories = frozenset(
            feature.name for feature in model.spec.features if feature.kind is FeatureKind.CATEGORY
        )
        self._told_at = -math.inf
        self._predicting = threading.Lock()  # the one that was held up may go on at any time
        self._model_raw = msgspec.Raw(_encode(model.spec.model))
        self._version_raw = msgspec.Raw(_encode(model.spec.version))
        classes = model.spec.classes
        self._classes_raw = msgspec.Raw(_encode(classes)) if classes else None

    def answer(
        self,
        requests: Sequence[Rows],
        wait: float = 0.0,
        *,
        logged: bool = True,
        said: Said | None = None,
    ) -> list[Result]:
        """One result a request, in order; they are all of one role. A request that fails does not
        fail its neighbours.

        `wait`: how many seconds the calling thread may be held up until the journal has room. Not
        `logged`, rows are counted as dropped. `said`: see Said.
        """
        try:
            return self.together(requests, wait, logged=logged, said=said)
        except (JournalUnavailable, ModelAway) as error:
            return [error] * len(requests)
        except Exception as error:  # noqa: BLE001 - whatever the model raises
            ask = partial(self.together, logged=logged, said=said)
            return Apart(ask, self._told).answers(requests, error)

    def computing(self) -> bool:
        """Whether a batch is in the model: the next one's thread will wait for it."""
        return self._predicting.locked()

    def forget(self) -> None:
        """Nothing is kept; see Recalling."""

    def together(
        self,
        requests: Sequence[Rows],
        wait: float = 0.0,
        *,
        logged: bool = True,
        said: Said | None = None,
    ) -> list[Result]:
        """As `answer` does, but raises what fails for all of them."""
        rows = requests[0] if len(requests) == 1 else join(requests)
        outputs = said.known(requests) if said is not None else None
        seconds = None
        if outputs is None:
            started = time.perf_counter()
            with self._predicting:
                outputs = self._predict(rows)
            check_finite(outputs)
            seconds = time.perf_counter() - started
        ids = ids_of(requests, rows.count, self._new_ids)
        if logged:
            self._log(rows, ids, outputs, seconds, wait)
        else:
            self._measuring.unlogged(rows.count)
        self._measuring.batch(
            self._model.spec.version, rows.count, seconds, outputs.predictions, rows.role
        )
        if rows.role != Role.SHADOW:
            self._observe(rows, outputs)
        if said is not None and seconds is not None:
            said.learn(requests, outputs)
        return self._encoded(requests, ids, outputs)

    def _told(self, error: Exception) -> HomeostatError:
        if isinstance(error, InputError):  # of the journal: rows that it cannot write down
            return error
        version = self._model.spec.version
        if not isinstance(error, ModelError):
            log.error("version %s failed", version, exc_info=error)
        return ModelError(f"version {version} did not answer: {error}")

    def _predict(self, rows: Rows) -> Outputs:
        limit = self._max_batch_rows
        if rows.count <= limit:
            return self._model.predict(Batch(rows.count, rows.matrix, rows.columns))
        parts = [
            self._model.predict(part_of(rows, start, min(start + limit, rows.count)))
            for start in range(0, rows.count, limit)
        ]
        return Outputs(
            list(chain.from_iterable(part.predictions for part in parts)),  # type: ignore[arg-type]
            joined([part.probabilities for part in parts]),
            joined([part.embedding for part in parts]),
        )

    def _log(
        self,
        rows: Rows,
        ids: Sequence[str],
        outputs: Outputs,
        seconds: float | None,
        wait: float,
    ) -> None:
        batch = PredictionBatch(
            ids=ids,
            time_us=self._now_us(),
            version=self._model.spec.version,
            role=rows.role,
            features=self._names,
            matrix=rows.matrix,
            tensor=self._tensor,
            columns=rows.columns,
            categories=self._categories,
            keys=rows.keys,
            predictions=outputs.predictions,
            probabilities=outputs.probabilities,
            embedding=outputs.embedding,
            cached=seconds is None,
            latency_us=int((seconds or 0.0) * 1e6),
        )
        try:
            with self._pace:
                self._journal.append(batch, wait)
        except Exception as error:
            self._tell(error)
            if self._must_log:
                raise
            self._measuring.unlogged(rows.count)

    def _tell(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._told_at >= TELL_EVERY:
            self._told_at = now
            log.error("the journal does not take predictions: %s", error)

    def _encoded(
        self, requests: Sequence[Rows], ids: Sequence[str], outputs: Outputs
    ) -> list[Result]:
        predictions = outputs.predictions
        probabilities: list[list[float]] | None = None
        answers: list[Result] = []
        fallback = requests[0].role == Role.FALLBACK
        start = 0
        for request in requests:
            end = start + request.count
            if request.form is not None:
                answers.append(self._written(request, slice(start, end), ids, outputs))
                start = end
                continue
            if probabilities is None and outputs.probabilities is not None:
                probabilities = outputs.probabilities.tolist()
            answers.append(
                _encode(
                    Answer(
                        self._model_raw,
                        self._version_raw,
                        ids[start:end],
                        predictions[start:end],
                        probabilities and probabilities[start:end],
                        self._classes_raw,
                        fallback,
                    )
                )
            )
            start = end
        return answers

    def _written(self, request: Rows, part: slice, ids: Sequence[str], outputs: Outputs) -> Result:
        form = request.form
        assert form is not None
        spec, probabilities, embedding = self._model.spec, outputs.probabilities, outputs.embedding
        piece = Piece(
            spec.model,
            spec.version,
            spec.classes,
            ids[part],
            outputs.predictions[part],
            None if probabilities is None else probabilities[part],
            None if embedding is None else embedding[part],
            request.role == Role.FALLBACK,
        )
        try:
            return form(piece)
        except Exception as error:  # the rows are logged; another try would log them twice
            log.exception("an answer of version %s could not be written", spec.version)
            return ModelError(f"the answer of version {spec.version} was not written: {error}")


def check_finite(outputs: Outputs) -> None:
    """No number is no answer, and JSON could not say it."""
    probabilities, predictions = outputs.probabilities, outputs.predictions
    if probabilities is not None and not is_finite(probabilities):
        raise ModelError("it gave probabilities that are not numbers")
    if isinstance(predictions[0], float) and not is_finite(np.array(predictions)):
        raise ModelError("it gave a prediction that is not a finite number")
