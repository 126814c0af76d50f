"""An ONNX model in this process, by ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.errors import ModelError
from homeostat.model_runtime.contract import Batch, Outputs
from homeostat.model_runtime.heads import Head, head_for
from homeostat.model_runtime.loop_rows import loop_rows, most_rows
from homeostat.model_runtime.made_up import batch_of, made_up
from homeostat.model_runtime.output_names import OUTPUT_NAMES
from homeostat.model_runtime.placement import CPU, Placement
from homeostat.model_runtime.residency import FreeMemory
from homeostat.model_runtime.telling import line_of, version_of
from homeostat.records import ModelSpec

log = logging.getLogger(__name__)

FILE = Path("model.onnx")
_WARM_UP_ROWS = 64
_QUIET = 3  # errors only: what it finds odd about a model is no news to who serves it
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_FELL_BACK = (
    "ONNX Runtime has CUDA and could not use it: its own lines on standard error say why, mostly a "
    "driver, CUDA or cuDNN that is missing or of another version"
)
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class _Program:
    session: Any
    input: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]  # of one row
    outputs: tuple[str, ...]  # the prediction's, then the embedding's where one is asked for

    def run(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        array = np.ascontiguousarray(rows, self.dtype).reshape(len(rows), *self.shape)
        found: list[NDArray[Any]] = self.session.run(list(self.outputs), {self.input: array})
        return found


class OnnxModel:
    """See contract.LoadedModel."""

    def __init__(
        self,
        *,
        spec: ModelSpec,
        program: _Program,
        head: Head,
        memory_bytes: int = 0,
    ) -> None:
        self.spec = spec
        self.loop_rows = 0
        self._program = program
        self._head = head
        self.memory_bytes = memory_bytes  # of a GPU, about
        self.on_gpu = memory_bytes > 0

    def predict(self, batch: Batch) -> Outputs:
        try:
            found = self._program.run(_matrix(self.spec, batch))
        except Exception as error:  # ONNX Runtime has error classes of its own, without a base
            raise ModelError(
                f"{version_of(self.spec)} failed on {batch.rows} rows: {line_of(error)}"
            ) from error
        predictions, probabilities = self._head.read(found[0])
        embedding = found[1].astype(np.float32, copy=False) if len(found) > 1 else None
        return Outputs(predictions, probabilities, embedding)

    def close(self) -> None:
        """The memory goes with the session, whoever still has a reference to this."""
        self._program = replace(self._program, session=None)


def load_onnx(
    folder: Path,
    spec: ModelSpec,
    *,
    embedding: str | None,
    classes: tuple[str, ...],
    threads: int,
    placement: Placement = CPU,
    free: Callable[[], int] | None = None,
) -> OnnxModel:
    """Open and warm up; raises ModelError. `embedding` names an output of the model. `free` reads
    how much of the device's memory is: by default the GPU's, where the model is on one."""
    where = version_of(spec)
    try:
        tried = placed(placement)
        measured = free is not None
        free = free or (_free_of_gpu() if tried.on_gpu else _nothing)
        before = free()
        session = _session(folder / FILE, threads, tried)
        placement = _opened(session, placement)
        if tried.on_gpu and not placement.on_gpu:
            log.warning("%s computes on the CPU: %s", where, _FELL_BACK)
        program = _program(session, spec, embedding, where)
        sample = _made_up(program, _WARM_UP_ROWS)
        opened = free()
        raw, *vectors = program.run(sample)
        memory = FreeMemory(before=before, opened=opened, run=free())
    except ModelError:
        raise
    except Exception as error:  # whatever ONNX Runtime finds wrong with somebody's file
        raise ModelError(
            f"{where} cannot be loaded: {line_of(error)}; it is no ONNX model, needs a newer "
            "onnxruntime, or does not take the input its signature names"
        ) from error
    if len(raw) != len(sample):
        raise ModelError(f"{where} gives {len(raw)} outputs for {len(sample)} rows")
    for vector in vectors:
        if vector.ndim != 2 or len(vector) != len(sample):
            raise ModelError(
                f'the output "{embedding}" of {where} gives {vector.shape}, not one vector a row, '
                "so it cannot be the embedding"
            )
    head = head_for(spec.task, raw, classes, where, spec.postprocessing)
    size, batches = (folder / FILE).stat().st_size, placement.batch_rows // len(sample)
    model = OnnxModel(
        spec=replace(spec, classes=head.classes, embedding=embedding),
        program=program,
        head=head,
        memory_bytes=memory.needed(size, batches) if placement.on_gpu or measured else 0,
    )
    if not placement.on_gpu:  # an event loop never waits for a GPU
        model.loop_rows = loop_rows(
            most_rows(spec), lambda rows: batch_of(_made_up(program, rows)), model.predict
        )
    return model


def placed(placement: Placement) -> Placement:
    """On the GPU where ONNX Runtime can use one and the settings allow it. Raises ModelError."""
    return placement.resolved(
        lambda: _CUDA in _onnxruntime().get_available_providers(),
        "the onnxruntime that is installed has no CUDA: install onnxruntime-gpu",
    )


def _opened(session: Any, placement: Placement) -> Placement:
    """Where it is in truth: ONNX Runtime goes on without a GPU that it cannot use. Raises
    ModelError where the settings insist on one."""
    return placement.resolved(lambda: _CUDA in session.get_providers(), _FELL_BACK)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "an ONNX model needs ONNX Runtime: pip install 'homeostat[onnx]'"
        ) from error
    return onnxruntime


def _free_of_gpu() -> Callable[[], int]:
    from homeostat.model_runtime import gpu  # torch knows how much there is

    return gpu.free


def _nothing() -> int:
    return 0


def _session(path: Path, threads: int, placement: Placement) -> Any:
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    return onnxruntime.InferenceSession(str(path), options, providers=_providers(placement))


def _providers(placement: Placement) -> list[Any]:
    if not placement.on_gpu:
        return [_CPU]
    from homeostat.model_runtime.gpu import memory_limit  # torch knows how much there is

    limit = memory_limit(placement)
    return [(_CUDA, {} if limit is None else {"gpu_mem_limit": str(limit)}), _CPU]


def _program(session: Any, spec: ModelSpec, embedding: str | None, where: str) -> _Program:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise ModelError(f"{where} takes {len(inputs)} inputs ({names}); one tensor is served")
    taken = inputs[0]
    if taken.type not in _TYPES:
        raise ModelError(f"{where} takes {taken.type}; a tensor of numbers is served")
    if taken.shape and isinstance(taken.shape[0], int):
        raise ModelError(
            f"{where} was exported for batches of exactly {taken.shape[0]} rows; export it with "
            "a first dimension that is free"
        )
    outputs = {each.name: each for each in session.get_outputs()}
    if embedding is not None and embedding not in outputs:
        raise ModelError(
            f'{where} has no output "{embedding}" for [serving] embedding; it has '
            f"{', '.join(outputs)}. What an ONNX model computes within is not to be had: make the "
            "embedding an output when it is exported"
        )
    main = _main_output(list(outputs), embedding, where)
    if not outputs[main].type.startswith("tensor("):
        raise ModelError(
            f'the output "{main}" of {where} is {outputs[main].type}, and no tensor; export it '
            "without ZipMap (zipmap=False)"
        )
    return _Program(
        session=session,
        input=taken.name,
        dtype=np.dtype(_TYPES[taken.type]),
        shape=spec.tensor_shape if spec.tensor_shape is not None else (len(spec.features),),
        outputs=(main,) if embedding is None else (main, embedding),
    )


def _main_output(names: list[str], embedding: str | None, where: str) -> str:
    others = [name for name in names if name != embedding]
    named = [name for name in OUTPUT_NAMES if name in others]
    found = named[:1] or (others if len(others) == 1 else [])
    if not found:
        raise ModelError(
            f"{where} gives {', '.join(names)}, and none of it is plainly the prediction; name "
            f'that output "{OUTPUT_NAMES[0]}"'
        )
    return found[0]


def _made_up(program: _Program, rows: int) -> NDArray[Any]:
    return made_up(rows, program.shape, program.dtype)


def _matrix(spec: ModelSpec, batch: Batch) -> NDArray[Any]:
    if batch.matrix is not None:
        return batch.matrix
    columns = batch.columns or {}
    return np.column_stack([np.asarray(columns[name], np.float64) for name in spec.names])
