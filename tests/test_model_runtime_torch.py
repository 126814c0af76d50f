"""Exported torch programs in this process: what they answer, and how they fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from registry_fixtures import LoggedModels
from torch import nn

from homeostat.errors import ModelError
from homeostat.model_runtime.contract import Batch, LoadedModel
from homeostat.model_runtime.loading import load
from homeostat.model_runtime.loop_rows import MOST_NUMBERS
from homeostat.records import Feature, ModelSpec, Task, to_json
from homeostat.registry.cache import SPEC_FILE, entry_path, model_folder, read_spec
from homeostat.registry.mlflow_registry import Registry


class Net(nn.Module):
    """A convolutional net with an embedding, and modules that give no vector a row."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.ReLU())
        self.head = nn.Linear(16, 3)
        self.unused = nn.Linear(16, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.encoder(self.features(pixels)))
        return scores


class Answering(nn.Module):
    """A linear net whose outputs take the form a test asks for."""

    def __init__(self, form: Callable[[torch.Tensor, torch.Tensor], Any], outputs: int = 3) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 4)
        self.head = nn.Linear(4, outputs)
        self.form = form

    def forward(self, rows: torch.Tensor) -> Any:
        embedding = self.encoder(rows)
        return self.form(self.head(embedding), embedding)


class Twice(nn.Module):
    """A module that runs twice has no single place in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.encoder(torch.relu(self.encoder(rows))))
        return scores


class Means(nn.Module):
    """Next to nothing to compute, on images whose making takes long."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.table(tokens).mean(dim=1))
        return scores


class TwoInputs(nn.Module):
    def forward(self, rows: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        return rows + more


def entry_of(
    folder: Path,
    net: nn.Module,
    shape: tuple[int, ...],
    *,
    task: Task = Task.CLASSIFICATION,
    dtype: torch.dtype = torch.float32,
    rows: int = 2,
    inputs: int = 1,
) -> Path:
    """A cache entry as fetching makes it, without MLflow in between."""
    entry = entry_path(folder, "net", "1")
    (model_folder(entry) / "data").mkdir(parents=True)
    examples = tuple(torch.zeros(rows, *shape, dtype=dtype) for _ in range(inputs))
    dynamic = tuple({0: torch.export.Dim.AUTO} for _ in examples)
    program = torch.export.export(net.eval(), examples, dynamic_shapes=dynamic)
    torch.export.save(program, model_folder(entry) / "data" / "model.pt2")
    spec = ModelSpec(
        model="net",
        version="1",
        runtime="torch",
        task=task,
        features=tuple(Feature(name=f"x{i}") for i in range(int(np.prod(shape)))),
        tensor_shape=shape,
        tensor_dtype=str(dtype).removeprefix("torch."),
    )
    (entry / SPEC_FILE).write_bytes(to_json(spec))
    return entry


def loaded(entry: Path, embedding: str | None = None, classes: tuple[str, ...] = ()) -> LoadedModel:
    return load(entry, read_spec(entry), embedding=embedding, classes=classes, threads=1)


def rows_of(count: int, width: int, seed: int = 1) -> Batch:
    matrix = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return Batch(count, matrix=matrix)


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(3)
    return Net().eval()


@pytest.fixture(scope="module")
def net_entry(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return entry_of(tmp_path_factory.mktemp("net"), net, (1, 8, 8))


@pytest.mark.parametrize("count", [1, 2, 64])
def test_it_answers_as_the_network_does(net: Net, net_entry: Path, count: int) -> None:
    """Classes, probabilities and embedding are those of the module the user trained."""
    model = loaded(net_entry, "encoder", ("a", "b", "c"))
    batch = rows_of(count, 64)
    outputs = model.predict(batch)
    with torch.inference_mode():
        pixels = torch.from_numpy(batch.matrix).reshape(count, 1, 8, 8)
        embedding = net.encoder(net.features(pixels))
        probabilities = torch.softmax(net(pixels), dim=1)
    assert outputs.probabilities is not None
    assert outputs.embedding is not None
    np.testing.assert_allclose(outputs.probabilities, probabilities, atol=1e-6)
    np.testing.assert_allclose(outputs.embedding, embedding, atol=1e-6)
    assert outputs.predictions == ["abc"[i] for i in probabilities.argmax(dim=1)]
    assert model.spec.classes == ("a", "b", "c")
    assert model.spec.embedding == "encoder"


def test_several_load_at_once(net_entry: Path) -> None:
    """As several models of one server do when it starts."""
    batch = rows_of(2, 64)
    with ThreadPoolExecutor() as threads:
        models = list(threads.map(lambda _: loaded(net_entry, "encoder"), range(4)))
    answers = [model.predict(batch).probabilities for model in models]
    for each in answers:
        np.testing.assert_array_equal(each, answers[0])


def test_without_an_embedding_none_is_computed(net_entry: Path) -> None:
    """Nothing is asked of the network that the settings did not ask for; classes get numbers."""
    outputs = loaded(net_entry).predict(rows_of(4, 64))
    assert outputs.embedding is None
    assert set(outputs.predictions) <= {"0", "1", "2"}


def test_rows_that_may_not_be_written_to(net_entry: Path) -> None:
    """A view of a request's bytes is as good as an array of its own."""
    matrix = np.frombuffer(bytes(4 * 64 * 2), np.float32).reshape(2, 64)
    assert len(loaded(net_entry).predict(Batch(2, matrix=matrix)).predictions) == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("encodr", 'no module "encodr"'),
        ("unused", '"unused"'),
        ("features", "not one vector a row"),
    ],
)
def test_an_embedding_that_cannot_be_had_is_a_load_error(
    net_entry: Path, name: str, said: str
) -> None:
    """A module that is absent, does not run or gives no vector is named, with those that do."""
    with pytest.raises(ModelError, match=said) as raised:
        loaded(net_entry, name)
    assert "encoder" in str(raised.value)
    assert "head" in str(raised.value)


def test_large_rows_alone_keep_no_model_from_the_event_loop(tmp_path: Path) -> None:
    """What counts is how long it computes, and not how long its made-up rows take to make. But the
    loop gets no more of them than it can log at once, and fewer than it is tried with."""
    model = loaded(entry_of(tmp_path, Means(), (3, 64, 64)))
    assert model.loop_rows == MOST_NUMBERS // (3 * 64 * 64) > 0


def test_a_module_that_runs_twice_gives_its_last_output(tmp_path: Path) -> None:
    """Where the flat graph has no single node for a module, the hook itself serves."""
    net = Twice()
    model = loaded(entry_of(tmp_path, net, (5,)), "encoder")
    batch = rows_of(7, 5)
    with torch.inference_mode():
        rows = torch.from_numpy(batch.matrix)
        expected = net.encoder(torch.relu(net.encoder(rows)))
    for _ in range(2):
        outputs = model.predict(batch)
        assert outputs.embedding is not None
        np.testing.assert_allclose(outputs.embedding, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("form", "embedding"),
    [
        (lambda logits, vector: {"embedding": vector, "logits": logits}, "embedding"),
        (lambda logits, vector: {"scores": logits, "vector": vector}, "vector"),
        (lambda logits, vector: (logits, vector), "embedding"),
        (lambda logits, vector: (logits, vector * 1), "encoder"),
        (lambda logits, vector: torch.softmax(logits, dim=1), "encoder"),
        (lambda logits, vector: torch.log_softmax(logits, dim=1), "encoder"),
    ],
)
def test_every_form_of_output_is_read_alike(
    tmp_path: Path, form: Callable[..., Any], embedding: str
) -> None:
    """Logits, probabilities, dictionaries and pairs all give the same answer."""
    net = Answering(form)
    model = loaded(entry_of(tmp_path, net, (5,)), embedding)
    batch = rows_of(6, 5)
    outputs = model.predict(batch)
    with torch.inference_mode():
        vector = net.encoder(torch.from_numpy(batch.matrix))
        expected = torch.softmax(net.head(vector), dim=1)
    assert outputs.probabilities is not None
    assert outputs.embedding is not None
    np.testing.assert_allclose(outputs.probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(outputs.embedding, vector, atol=1e-6)


def test_one_output_is_the_second_of_two_classes(tmp_path: Path) -> None:
    """A single logit is turned into the probabilities of both classes."""
    net = Answering(lambda logits, vector: logits, outputs=1)
    outputs = loaded(entry_of(tmp_path, net, (5,)), classes=("no", "yes")).predict(rows_of(9, 5))
    with torch.inference_mode():
        second = torch.sigmoid(net(torch.from_numpy(rows_of(9, 5).matrix)))[:, 0].numpy()
    assert outputs.probabilities is not None
    np.testing.assert_allclose(outputs.probabilities[:, 1], second, atol=1e-6)
    assert outputs.predictions == ["yes" if share > 0.5 else "no" for share in second]


def test_regression_gives_numbers(tmp_path: Path) -> None:
    """A regression model answers one plain number a row, and no probabilities."""
    net = Answering(lambda value, vector: value, outputs=1)
    model = loaded(entry_of(tmp_path, net, (5,), task=Task.REGRESSION))
    outputs = model.predict(rows_of(3, 5))
    with torch.inference_mode():
        expected = net(torch.from_numpy(rows_of(3, 5).matrix))[:, 0]
    np.testing.assert_allclose(np.array(outputs.predictions), expected, atol=1e-6)
    assert outputs.probabilities is None
    assert model.spec.classes == ()


def test_whole_numbers_go_in_as_such(tmp_path: Path) -> None:
    """A model of tokens gets integers, whatever the batch came as."""
    model = loaded(entry_of(tmp_path, Words(), (6,), dtype=torch.int64))
    assert len(model.predict(Batch(2, matrix=np.full((2, 6), 49.0))).predictions) == 2
    with pytest.raises(ModelError, match="failed on 1 rows"):
        model.predict(Batch(1, matrix=np.full((1, 6), 50)))
    assert len(model.predict(Batch(1, matrix=np.full((1, 6), 1))).predictions) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 1}, "two or more rows"),
        ({"inputs": 2}, "takes 2 inputs"),
        ({"task": Task.REGRESSION}, "3 numbers a row"),
        ({"classes": ("only", "two")}, "3 classes, but 2 are named"),
    ],
)
def test_what_cannot_be_served_says_why(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """A program that does not fit is refused at load, with what to do about it."""
    classes = change.pop("classes", ())
    net = TwoInputs() if change.get("inputs") else Answering(lambda logits, vector: logits)
    entry = entry_of(tmp_path, net, (5,), **change)
    with pytest.raises(ModelError, match=said):
        loaded(entry, classes=classes)


def test_a_file_that_is_no_program_is_a_model_error(tmp_path: Path) -> None:
    """Bytes that torch cannot read end in our error, not in torch's."""
    entry = entry_of(tmp_path, Words(), (6,), dtype=torch.int64)
    (model_folder(entry) / "data" / "model.pt2").write_bytes(b"no program")
    with pytest.raises(ModelError, match="cannot be loaded"):
        loaded(entry)


def test_a_model_logged_by_mlflow_is_served_without_it(
    logged_models: LoggedModels, tmp_path: Path
) -> None:
    """What MLflow logs by default loads from the cache in a process that never imports MLflow."""
    settings = logged_models.settings(tmp_path, model="served")
    registry = Registry(settings)
    logged = registry.find_model("run-digits")
    assert logged is not None
    version = registry.register(logged, "run-digits")
    registry.fetch(version, feature_names=())
    entry = entry_path(settings.cache_path, "served", version)
    program = (
        "import sys, pathlib, numpy\n"
        "from homeostat.model_runtime.contract import Batch\n"
        "from homeostat.model_runtime.loading import load\n"
        "from homeostat.registry.cache import read_spec\n"
        f"entry = pathlib.Path({str(entry)!r})\n"
        "model = load(entry, read_spec(entry), embedding='encoder', classes=(), threads=1)\n"
        "outputs = model.predict(Batch(3, matrix=numpy.zeros((3, 64), 'float32')))\n"
        "print(outputs.predictions[0][:5], outputs.embedding.shape, outputs.probabilities.shape)\n"
        "print(sorted({'mlflow', 'pandas', 'sqlalchemy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["digit (3, 16) (3, 10)", "[]"], done.stderr


def test_an_unknown_runtime_is_refused(net_entry: Path) -> None:
    """A cache written by a newer release is not guessed at."""
    spec = replace(read_spec(net_entry), runtime="quantum")
    with pytest.raises(ModelError, match="quantum"):
        load(net_entry, spec, embedding=None, classes=(), threads=1)
