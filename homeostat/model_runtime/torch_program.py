"""A torch network that MLflow logged as an exported program, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from homeostat.errors import ModelError
from homeostat.model_runtime import gpu, residency
from homeostat.model_runtime.contract import Batch, Outputs
from homeostat.model_runtime.exported_program import Program, open_program
from homeostat.model_runtime.heads import Head, head_for
from homeostat.model_runtime.loop_rows import loop_rows, most_rows
from homeostat.model_runtime.made_up import batch_of, made_up
from homeostat.model_runtime.placement import CPU, Placement
from homeostat.model_runtime.small_network import SmallNetwork, agrees
from homeostat.model_runtime.telling import line_of, version_of
from homeostat.records import ModelSpec

FILE = Path("data") / "model.pt2"
_WARM_UP_ROWS = 64
_SMALL = (1, 4, 16, _WARM_UP_ROWS)  # numbers of rows that NumPy is tried with
_TRIES = 5


class TorchModel:
    """An exported network; see contract.LoadedModel."""

    def __init__(
        self,
        *,
        spec: ModelSpec,
        program: Program,
        head: Head,
        least_rows: int,
        small_rows: int,
        memory_bytes: int = 0,
    ) -> None:
        self.spec = spec
        self.loop_rows = 0
        self._program = program
        self._head = head
        self._least_rows = least_rows
        self.memory_bytes = memory_bytes  # of a GPU, about
        self.on_gpu = memory_bytes > 0
        self.small_rows = small_rows  # up to so many rows NumPy is faster than torch
        self.packed_convolutions = program.packed

    def predict(self, batch: Batch) -> Outputs:
        if batch.rows <= self.small_rows and batch.matrix is not None:
            raw, embedding = _run_small(self._program, batch.matrix)
            return Outputs(*self._head.read(raw), embedding)
        rows = _tensor(self.spec, batch)
        try:
            with torch.inference_mode():
                raw, embedding = _run(self._program, rows, self._least_rows)
        except (RuntimeError, AssertionError, IndexError, TypeError, ValueError) as error:
            raise ModelError(
                f"{version_of(self.spec)} failed on {batch.rows} rows: {line_of(error)}"
            ) from error
        predictions, probabilities = self._head.read(raw)
        return Outputs(predictions, probabilities, embedding)

    def close(self) -> None:
        """The machine's memory goes with the last reference; a GPU's is given back at once."""
        if self.on_gpu:
            self._program = replace(self._program, run=_closed)
            gpu.give_back()


def load_torch(
    folder: Path,
    spec: ModelSpec,
    *,
    embedding: str | None,
    classes: tuple[str, ...],
    threads: int,
    placement: Placement = CPU,
) -> TorchModel:
    """Open and warm up; raises ModelError. Sets the number of threads of the whole process, and
    how much of a GPU's memory it may take."""
    torch.set_num_threads(max(1, threads))
    placement = gpu.placed(placement)
    sample = torch.from_numpy(_made_up(spec, _WARM_UP_ROWS))
    where = version_of(spec)
    try:
        with torch.inference_mode():
            program, memory = _placed(folder / FILE, embedding, sample, where, placement)
            raw, _ = _run(program, sample, 1)
            least_rows = _least_rows(program, sample, raw)
    except ModelError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{where} does not fit into the GPU's memory, of which this process may take "
            f"{placement.memory:.0%} (serving.gpu_memory): {line_of(error)}"
        ) from error
    except Exception as error:  # whatever torch finds wrong with somebody's file
        raise ModelError(
            f"{where} cannot be loaded: {line_of(error)}; it was logged by another version of "
            "torch, or does not take the input its signature names"
        ) from error
    if len(raw) != len(sample):
        raise ModelError(f"{where} gives {len(raw)} outputs for {len(sample)} rows")
    head = head_for(spec.task, raw, classes, where, spec.postprocessing)
    spec = replace(spec, classes=head.classes, embedding=embedding)
    model = TorchModel(
        spec=spec,
        program=program,
        head=head,
        least_rows=least_rows,
        small_rows=_small_rows(program, sample),
        memory_bytes=memory,
    )
    if not placement.on_gpu:  # an event loop never waits for a GPU
        model.loop_rows = loop_rows(
            most_rows(spec), lambda rows: batch_of(_made_up(spec, rows)), model.predict
        )
    return model


def _placed(
    path: Path, embedding: str | None, sample: torch.Tensor, where: str, placement: Placement
) -> tuple[Program, int]:
    """The program, which takes rows and gives answers in the machine's memory wherever it
    computes, and what it takes of a GPU's."""
    gpu.limit_memory(placement)
    device = placement.device
    packs = placement.precision == "float32"
    program = open_program(path, embedding, sample.to(device), where, device, packs=packs)
    program = replace(program, run=gpu.ferried(program.run, placement))
    if not placement.on_gpu:
        return program, 0
    peak = gpu.peak(lambda: program.run(sample))
    rows = max(1, placement.batch_rows // len(sample))
    return program, residency.needed(path.stat().st_size, peak * rows)


def _closed(_rows: torch.Tensor) -> NoReturn:
    raise RuntimeError("the version was closed")


def _run(
    program: Program, rows: torch.Tensor, least: int
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    count = len(rows)
    if count < least:
        rows = rows.repeat(least, *(1 for _ in rows.shape[1:]))
    outputs = program.run(rows)
    raw = _array(outputs[program.output])[:count]
    if program.embedding is None:
        return raw, None
    return raw, _array(outputs[program.embedding])[:count].astype(np.float32, copy=False)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    array: NDArray[Any] = tensor.numpy()
    return array


def _least_rows(program: Program, sample: torch.Tensor, raw: NDArray[Any]) -> int:
    """2 where a program does not answer alike for one row: export assumes two or more."""
    try:
        alone, _ = _run(program, sample[:1], 1)
    except (RuntimeError, AssertionError, IndexError, TypeError, ValueError):
        return 2
    same = alone.shape == raw[:1].shape and np.allclose(alone, raw[:1], rtol=1e-3, atol=1e-4)
    return 1 if same else 2


def _small_rows(program: Program, sample: torch.Tensor) -> int:
    """Up to how many rows NumPy takes less time for this network; 0 where it cannot do it."""
    small = program.small
    if small is None or sample.dtype is not torch.float32:
        return 0
    flat = sample.flatten(1).numpy()
    with torch.inference_mode():
        if not agrees(small, flat, program.run(sample)):
            return 0
    fits = 0
    for rows in _SMALL:
        if not _is_faster(small, program, sample[:rows]):
            break
        fits = rows
    return fits


def _run_small(program: Program, rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    assert program.small is not None
    outputs = program.small.run(rows)
    place = program.embedding
    return outputs[program.output], None if place is None else outputs[place]


def _is_faster(small: SmallNetwork, program: Program, rows: torch.Tensor) -> bool:
    ours = _seconds(lambda: small.run(rows.flatten(1).numpy()))
    return ours <= _seconds(lambda: program.run(rows))


def _seconds(run: Callable[[], object]) -> float:
    """The best of some runs: the first ones pay for what stays in memory."""
    best = float("inf")
    for _ in range(_TRIES):
        start = time.perf_counter()
        with torch.inference_mode():
            run()
        best = min(best, time.perf_counter() - start)
    return best


def _made_up(spec: ModelSpec, rows: int) -> NDArray[Any]:
    shape = spec.tensor_shape or (len(spec.features),)
    return made_up(rows, shape, np.dtype(spec.tensor_dtype))


def _tensor(spec: ModelSpec, batch: Batch) -> torch.Tensor:
    matrix = batch.matrix
    if matrix is None:
        columns = batch.columns or {}
        matrix = np.column_stack([np.asarray(columns[name], np.float64) for name in spec.names])
    dtype = np.dtype(spec.tensor_dtype)
    # torch warns about arrays it may not write to, such as views of a request's bytes.
    array = np.require(matrix, dtype=dtype, requirements=["C", "W"])
    if spec.tensor_shape is not None:
        array = array.reshape(batch.rows, *spec.tensor_shape)
    return torch.from_numpy(array)
