"""A model of any MLflow flavor, in a worker process: its code and its imports stay out of ours."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread

import numpy as np

from homeostat.errors import ModelAway, ModelDied, ModelError, ModelSilent
from homeostat.model_runtime import wire
from homeostat.model_runtime.contract import Batch, Outputs
from homeostat.model_runtime.telling import version_of
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
    """A model in a worker process; see contract.LoadedModel and InProcess.

    A worker that died is started again, at once if it is watched, else on the next predict; the
    batch it died of is lost, by ModelDied. One that does not answer within `seconds` is ended, by
    ModelSilent.
    """

    loop_rows = 0

    def __init__(self, spec: ModelSpec, setup: wire.Setup, seconds: float) -> None:
        self._setup = setup
        self._seconds = seconds
        self._closed = Event()
        self._watched = False
        self._tell: Callable[[bool], None] = lambda away: None
        self._starting = Lock()
        self._problem = ""  # why another could not be started, until somebody hears of it
        self._worker = _Worker(spec, setup)
        self.spec = replace(spec, classes=self._worker.classes, embedding=setup.embedding)

    def predict(self, batch: Batch) -> Outputs:
        reply = self._ask(batch)
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

    def watch(self, tell: Callable[[bool], None]) -> None:
        self._tell, self._watched = tell, True
        self._watch_worker()

    def close(self) -> None:
        self._closed.set()
        self._worker.end()

    def _ask(self, batch: Batch) -> wire.Reply:
        """Where it is watched, who is first to find a worker dead is told so; who asks then waits
        for the next one."""
        worker = self._worker
        if worker.ended:
            if self._watched and not worker.known:
                raise worker.away()
            self._start_again(worker)
            problem, self._problem = self._problem, ""
            if problem:
                raise ModelSilent(problem)
        worker = self._worker
        try:
            with worker.asking:
                return worker.ask(_rows(batch), self._seconds)
        except ModelSilent as silent:
            raise ModelSilent(
                f"{silent}; it had {batch.rows} rows at once (serving.max_batch_rows)"
            ) from silent

    def _watch_worker(self) -> None:
        watch = partial(self._when_ended, self._worker)
        Thread(target=watch, name="worker's end", daemon=True).start()

    def _when_ended(self, worker: _Worker) -> None:
        worker.wait()
        if not self._closed.is_set():
            self._start_again(worker, once=True)

    def _start_again(self, worker: _Worker, *, once: bool = False) -> None:
        """In this one's place, unless there is another, or nobody has heard yet why there is none;
        `once`: or it was tried before."""
        with self._starting:
            if self._worker is not worker or self._problem or (once and worker.followed):
                return
            worker.followed = True
            self._tell(True)
            try:
                self._problem = self._start()
            finally:
                self._tell(False)
            if self._watched and not self._problem:
                self._watch_worker()

    def _start(self) -> str:
        """What went wrong."""
        where = version_of(self.spec)
        if self._closed.is_set():
            return f"{where} was closed"
        log.warning("The worker of %s has ended; it is started again.", where)
        # who still reads from it shall find its end, not a successor's line
        with self._worker.asking:
            self._worker.end()
        try:
            self._worker = _Worker(self.spec, self._setup)
        except (ModelError, OSError) as error:
            problem = f"the worker process of {where} could not be started again: {error}"
            log.error("%s", problem)
            return problem
        if self._closed.is_set():  # meanwhile, without this one
            self._worker.end()
        return ""


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
        self.known = False  # that it has ended, to somebody who asked
        self.asking = Lock()
        self.followed = False  # by another, or by the try to start one
        self._where = version_of(spec)
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
            self.known = True
            self._process.kill()
            self._process.wait()
            raise ModelSilent(
                f"{self._where} did not answer within {seconds:g} s; its worker process was ended"
            ) from None
        except (EOFError, OSError) as error:
            self.known = True
            self.end()  # it may live on and hear nobody
            # the kernel says so where it ended with something unread
            unread = isinstance(error, BrokenPipeError | ConnectionResetError)
            raise (self.away() if unread else ModelDied(self._how_it_ended())) from error
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

    def wait(self) -> None:
        """For its end, whoever brings it about."""
        self._process.wait()

    def away(self) -> ModelAway:
        self.known = True
        return ModelAway(f"{self._how_it_ended()}. It had not read what it was asked")

    def _how_it_ended(self) -> str:
        return (
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
