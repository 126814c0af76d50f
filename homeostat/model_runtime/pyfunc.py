"""A model of any MLflow flavor, in a worker process: its code and its imports stay out of ours."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from homeostat.errors import ModelDied, ModelError, ModelSilent
from homeostat.model_runtime import wire
from homeostat.model_runtime.contract import Batch, Outputs
from homeostat.records import ModelSpec, Task

log = logging.getLogger(__name__)

WARM_UP_ROWS = 8
_LOAD_SECONDS = 180.0
PREDICT_SECONDS = 60.0
_CLOSE_SECONDS = 2.0
# What a model needs to be imported and to compute; everything else, keys and passwords first,
# stays out of the reach of its code.
_PASSED = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "PYTHONSAFEPATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)
_STDERR = 2  # what a model prints belongs in the log, not in somebody's output


class PyfuncModel:
    """A model in a worker process; see contract.LoadedModel.

    A worker that died is started again on the next predict; the batch it died of is lost, by
    ModelDied. One that does not answer within `seconds` is ended, by ModelSilent.
    """

    loop_rows = 0

    def __init__(self, spec: ModelSpec, setup: wire.Setup, seconds: float) -> None:
        self._setup = setup
        self._seconds = seconds
        self._closed = False
        self._worker = _Worker(spec, setup)
        self.spec = replace(spec, classes=self._worker.classes, embedding=setup.embedding)

    def predict(self, batch: Batch) -> Outputs:
        if self._worker.ended:
            self._start_again()
        try:
            reply = self._worker.ask(_rows(batch), self._seconds)
        except ModelSilent as silent:
            raise ModelSilent(
                f"{silent}; it had {batch.rows} rows at once (serving.max_batch_rows)"
            ) from silent
        if reply.labels is not None:
            predictions: list[str] | list[float] = reply.labels
        else:
            assert reply.values is not None
            predictions = reply.values.read().tolist()
        return Outputs(
            predictions,
            reply.probabilities.read() if reply.probabilities else None,
            reply.embedding.read() if reply.embedding else None,
        )

    def close(self) -> None:
        self._closed = True
        self._worker.end()

    def _start_again(self) -> None:
        where = _where(self.spec)
        if self._closed:
            raise ModelSilent(f"{where} was closed")
        log.warning("The worker of %s has ended; it is started again.", where)
        self._worker.end()
        try:
            self._worker = _Worker(self.spec, self._setup)
        except (ModelError, OSError) as error:
            raise ModelSilent(
                f"the worker process of {where} could not be started again: {error}"
            ) from error


def load_pyfunc(
    folder: Path,
    spec: ModelSpec,
    *,
    embedding: str | None,
    classes: tuple[str, ...],
    threads: int,
    seconds: float = PREDICT_SECONDS,
) -> PyfuncModel:
    """Start a worker and wait until its model is warm; raises ModelError. `seconds`: how long it
    may take over a batch."""
    setup = wire.Setup(
        folder=str(folder),
        task=spec.task.value,
        tensor_shape=spec.tensor_shape,
        tensor_dtype=spec.tensor_dtype,
        classes=classes if spec.task is Task.CLASSIFICATION else (),
        embedding=embedding,
        threads=threads,
        warm_up_rows=WARM_UP_ROWS,
    )
    return PyfuncModel(spec, setup, seconds)


class _Worker:
    """One child process, from its start to its end."""

    def __init__(self, spec: ModelSpec, setup: wire.Setup) -> None:
        self._where = _where(spec)
        ours, theirs = socket.socketpair()
        module = "homeostat.model_runtime.pyfunc_worker"
        # -P: nothing of the folder we stand in is imported. -B: no .pyc beside the hashed files.
        # The descriptor closes when we end, however we end, and with it ends the worker.
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-B", "-m", module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,
                env=_environment(os.environ),
            )
        self._connection = ours
        try:
            ready = self.ask(setup, _LOAD_SECONDS)
        except BaseException:
            self.end()
            raise
        self.classes = ready.classes
        if ready.cold is not None:
            log.warning(
                "%s is ready without a warm-up: on made-up rows (0, empty text, false) its own "
                "code raised %s. Log it with an input_example to have it warmed up by that.",
                self._where,
                ready.cold,
            )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def ask(self, message: object, seconds: float) -> wire.Reply:
        self._connection.settimeout(seconds)
        try:
            wire.send(self._connection, message)
            reply = wire.receive(self._connection, wire.Reply)
        except TimeoutError:
            self._process.kill()
            self._process.wait()
            raise ModelSilent(
                f"{self._where} did not answer within {seconds:g} s; its worker process was ended"
            ) from None
        except (EOFError, OSError) as error:
            raise self._died() from error
        if reply.error is not None:
            raise ModelError(f"{self._where}: {reply.error}")
        return reply

    def end(self) -> None:
        self._connection.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _died(self) -> ModelDied:
        self.end()  # it may live on and hear nobody
        return ModelDied(
            f"the worker process of {self._where} ended (exit status {self._process.poll()}); "
            "the log shows its last words"
        )


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Given at its start, not removed there: a process can read back what it was started with."""
    return {
        name: value for name, value in ours.items() if name in _PASSED or name.startswith("LC_")
    }


def _rows(batch: Batch) -> wire.Rows:
    if batch.matrix is not None:
        matrix = wire.Array.of(np.ascontiguousarray(batch.matrix))
        return wire.Rows(rows=batch.rows, matrix=matrix)
    columns = {
        name: np.asarray(values).tolist() if hasattr(values, "dtype") else list(values)
        for name, values in (batch.columns or {}).items()
    }
    return wire.Rows(rows=batch.rows, columns=columns)


def _where(spec: ModelSpec) -> str:
    return f"version {spec.version} of {spec.model}"
