"""ONNX models in this process: what they answer, and how they fail."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from homeostat.errors import ModelError
from homeostat.model_runtime.contract import Batch, LoadedModel
from homeostat.model_runtime.loading import load
from homeostat.model_runtime.loop_rows import MOST_NUMBERS
from homeostat.model_runtime.onnx_program import OnnxModel, load_onnx
from homeostat.model_runtime.placement import Placement
from homeostat.model_runtime.residency import needed
from homeostat.records import Task
from homeostat.registry.cache import model_folder, read_spec
from homeostat.registry.signature import spec_of

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
onnx = pytest.importorskip("onnx", reason="onnx, which makes the models, is not installed")

from onnx_kit import FEATURES, answers, entry_of, means, network  # noqa: E402

MB = 1 << 20


def loaded(entry: Path, embedding: str | None = None, classes: tuple[str, ...] = ()) -> LoadedModel:
    return load(entry, read_spec(entry), embedding=embedding, classes=classes, threads=1)


def rows_of(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, FEATURES)).astype(np.float32)


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares


@pytest.mark.parametrize("count", [1, 2, 64])
def test_it_answers_as_the_network_does(tmp_path: Path, count: int) -> None:
    """Classes, probabilities and an embedding that is an output by name."""
    model = loaded(entry_of(tmp_path, network()), "embedding", ("a", "b", "c"))
    rows = rows_of(count)
    outputs = model.predict(Batch(count, matrix=rows))
    logits, embedding = answers(rows)
    assert outputs.probabilities is not None
    assert outputs.embedding is not None
    np.testing.assert_allclose(outputs.probabilities, softmax(logits), atol=1e-6)
    np.testing.assert_allclose(outputs.embedding, embedding, atol=1e-5)
    assert outputs.predictions == ["abc"[i] for i in logits.argmax(axis=1)]
    assert model.spec.classes == ("a", "b", "c")
    assert model.spec.embedding == "embedding"
    assert model.loop_rows


def test_without_an_embedding_none_is_computed(tmp_path: Path) -> None:
    """Nothing is asked of the network that the settings did not ask for; classes get numbers."""
    outputs = loaded(entry_of(tmp_path, network())).predict(Batch(4, matrix=rows_of(4)))
    assert outputs.embedding is None
    assert set(outputs.predictions) <= {"0", "1", "2"}


def test_probabilities_are_read_as_they_come(tmp_path: Path) -> None:
    """A model that ends in a softmax is not put through another one."""
    outputs = loaded(entry_of(tmp_path, network(last="Softmax"))).predict(
        Batch(9, matrix=rows_of(9))
    )
    assert outputs.probabilities is not None
    np.testing.assert_allclose(outputs.probabilities, softmax(answers(rows_of(9))[0]), atol=1e-6)


@pytest.mark.parametrize(
    ("step", "last", "expected"),
    [
        ("softmax", None, softmax),
        ("sigmoid", None, lambda scores: 1 / (1 + np.exp(-scores))),
        ("none", "Sigmoid", lambda scores: 1 / (1 + np.exp(-scores))),
        ("softmax", "Softmax", lambda scores: softmax(softmax(scores))),
    ],
)
def test_the_step_that_travels_with_the_version(
    tmp_path: Path, step: str, last: str | None, expected: Any
) -> None:
    """`postprocessing` says how outputs become probabilities, whatever they look like."""
    model = loaded(entry_of(tmp_path, network(last=last), postprocessing=step))
    outputs = model.predict(Batch(9, matrix=rows_of(9)))
    assert outputs.probabilities is not None
    np.testing.assert_allclose(outputs.probabilities, expected(answers(rows_of(9))[0]), atol=1e-5)


def test_regression_gives_numbers(tmp_path: Path) -> None:
    """A regression model answers one plain number a row, and no probabilities."""
    model = loaded(entry_of(tmp_path, network(1), task=Task.REGRESSION))
    outputs = model.predict(Batch(3, matrix=rows_of(3)))
    found = np.array(outputs.predictions)
    np.testing.assert_allclose(found, answers(rows_of(3), 1)[0][:, 0], atol=1e-5)
    assert outputs.probabilities is None


def test_rows_as_named_columns(tmp_path: Path) -> None:
    """A signature of columns that are all numbers: rows come as doubles, or by name."""
    model = loaded(entry_of(tmp_path, network(), tensor_shape=None))
    rows = rows_of(6)
    said = answers(rows)[0].argmax(axis=1)
    columns = {f"x{i}": rows[:, i].tolist() for i in range(FEATURES)}
    for batch in (Batch(6, matrix=rows.astype(np.float64)), Batch(6, columns=columns)):
        assert model.predict(batch).predictions == [str(i) for i in said]


def test_a_batch_that_fails_leaves_the_model_usable(tmp_path: Path) -> None:
    """Rows of another width are an error of that batch alone."""
    model = loaded(entry_of(tmp_path, network()))
    with pytest.raises(ModelError, match="failed on 2 rows"):
        model.predict(Batch(2, matrix=np.zeros((2, 9), np.float32)))
    assert len(model.predict(Batch(2, matrix=rows_of(2))).predictions) == 2


@pytest.mark.parametrize(
    ("model", "more", "embedding", "classes", "said"),
    [
        ({"rows": 1}, {}, None, (), "exactly 1 rows"),
        ({}, {"task": Task.REGRESSION}, None, (), "3 numbers a row"),
        ({}, {}, None, ("only", "two"), "3 classes, but 2 are named"),
        ({"shown": False}, {}, "embedding", (), 'no output "embedding".*logits'),
        ({}, {"postprocessing": "argmax"}, None, (), '"argmax"; known are softmax'),
        ({"outputs": 1}, {"postprocessing": "softmax"}, None, (), '"sigmoid"'),
        ({}, {"tensor_shape": (1, 7)}, None, (), "cannot be loaded"),
    ],
)
def test_what_cannot_be_served_says_why(
    tmp_path: Path, model: Any, more: Any, embedding: Any, classes: Any, said: str
) -> None:
    """A model that does not fit is refused at load, with what to do about it; so is an embedding
    that does not come out."""
    with pytest.raises(ModelError, match=said):
        loaded(entry_of(tmp_path, network(**model), **more), embedding, classes)


def test_a_file_that_is_no_model_is_a_model_error(tmp_path: Path) -> None:
    """Bytes that ONNX Runtime cannot read end in our error, not in its."""
    with pytest.raises(ModelError, match="cannot be loaded"):
        loaded(entry_of(tmp_path, b"no model"))


def test_a_gpu_that_is_not_there_is_said(tmp_path: Path) -> None:
    """serving.device = "cuda" never falls back in silence; "auto" does."""
    entry = entry_of(tmp_path, network())
    spec = read_spec(entry)
    with pytest.raises(ModelError, match="onnxruntime-gpu"):
        load(
            entry,
            spec,
            embedding=None,
            classes=(),
            threads=1,
            placement=Placement(device="cuda"),
        )
    auto = Placement(device="auto")
    model = load(entry, spec, embedding=None, classes=(), threads=1, placement=auto)
    assert len(model.predict(Batch(2, matrix=rows_of(2))).predictions) == 2


def test_a_model_saved_by_mlflow_is_served_without_it(tmp_path: Path) -> None:
    """What MLflow's ONNX flavor saves is told by its files, with classes and step of its metadata,
    and loads in a process that never imports MLflow, pandas or torch."""
    import mlflow
    from mlflow.models import infer_signature

    folder = tmp_path / "cache" / "net" / "1" / "model"
    mlflow.onnx.save_model(
        network(),
        str(folder),
        signature=infer_signature(rows_of(3), answers(rows_of(3))[0]),
        pip_requirements=["mlflow"],
        metadata={"classes": ["a", "b", "c"], "postprocessing": "softmax"},
    )
    spec = spec_of(folder, model="net", version="1", task=Task.CLASSIFICATION, names=())
    assert (spec.runtime, spec.flavor) == ("onnx", "onnx")
    assert (spec.classes, spec.postprocessing) == (("a", "b", "c"), "softmax")
    program = (
        "import sys, pathlib, numpy\n"
        "from homeostat.model_runtime.contract import Batch\n"
        "from homeostat.model_runtime.onnx_program import load_onnx\n"
        "from homeostat.records import ModelSpec, from_json\n"
        f"spec = from_json(pathlib.Path({str(tmp_path / 'spec')!r}).read_bytes(), ModelSpec)\n"
        f"model = load_onnx(pathlib.Path({str(folder)!r}), spec, embedding='embedding',\n"
        "                  classes=spec.classes, threads=1)\n"
        f"outputs = model.predict(Batch(3, matrix=numpy.zeros((3, {FEATURES}), 'float32')))\n"
        "print(outputs.predictions, outputs.embedding.shape)\n"
        "print(sorted({'mlflow', 'pandas', 'sqlalchemy', 'torch', 'onnx'} & set(sys.modules)))\n"
    )
    from homeostat.records import to_json

    (tmp_path / "spec").write_bytes(to_json(spec))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["['a', 'a', 'a'] (3, 4)", "[]"], done.stderr


def test_large_rows_alone_keep_no_model_from_the_event_loop(tmp_path: Path) -> None:
    """What counts is how long it computes, and not how long its made-up rows take to make. But the
    loop gets no more of them than it can log at once, and fewer than it is tried with."""
    model = loaded(entry_of(tmp_path, means(), tensor_shape=(3, 64, 64)))
    assert model.loop_rows == MOST_NUMBERS // (3 * 64 * 64) > 0


def test_what_it_takes_of_a_device_is_measured(tmp_path: Path) -> None:
    """ONNX Runtime keeps no account that we could read: what was free before and after says it,
    for the largest batch. Never less than its weights, whatever others freed meanwhile."""
    entry = entry_of(tmp_path, network())
    folder, spec = model_folder(entry), read_spec(entry)

    def taken(*free: int) -> int:
        left = iter(free)
        model = load_onnx(
            folder,
            spec,
            embedding=None,
            classes=(),
            threads=1,
            placement=Placement(batch_rows=640),
            free=lambda: next(left),
        )
        return model.memory_bytes

    assert taken(1000 * MB, 600 * MB, 590 * MB) == needed(400 * MB, 10 * 10 * MB)
    size = (folder / "model.onnx").stat().st_size
    assert taken(1000 * MB, 1100 * MB, 1200 * MB) == needed(size, 0)
    assert load_onnx(folder, spec, embedding=None, classes=(), threads=1).memory_bytes == 0


@pytest.fixture
def cuda_in_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with onnxruntime-gpu where a library that it needs is missing: CUDA is on offer, and each
    session is opened on the CPU. torch finds a GPU of a gigabyte."""
    import onnxruntime
    import torch

    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (900 * MB, 1024 * MB))


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
@pytest.mark.usefixtures("cuda_in_name")
def test_what_fell_back_to_the_cpu_is_on_no_gpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers, takes nothing of a GPU that another version would have to leave, needs no thread
    of its own, and the log says so. Where the settings insist on a GPU, it does not load."""
    entry = entry_of(tmp_path, network())
    folder, spec = model_folder(entry), read_spec(entry)

    def opened(placement: Placement) -> OnnxModel:
        return load_onnx(folder, spec, embedding=None, classes=(), threads=1, placement=placement)

    model = opened(Placement(device="auto"))
    assert (model.memory_bytes, model.on_gpu) == (0, False)
    assert model.loop_rows
    assert len(model.predict(Batch(2, matrix=rows_of(2))).predictions) == 2
    assert "version 1 of net computes on the CPU: ONNX Runtime has CUDA and could" in caplog.text
    with pytest.raises(ModelError, match=r'serving\.device is "cuda", and ONNX Runtime has CUDA'):
        opened(Placement(device="cuda"))


def test_its_memory_goes_when_it_is_closed(tmp_path: Path) -> None:
    """Whoever still refers to the version: another one may wait for the room."""
    model = loaded(entry_of(tmp_path, network()))
    session = weakref.ref(model._program.session)  # type: ignore[attr-defined]
    model.close()
    assert session() is None
    with pytest.raises(ModelError, match="version 1 of net failed"):
        model.predict(Batch(1, matrix=rows_of(1)))
