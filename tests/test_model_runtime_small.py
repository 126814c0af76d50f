"""Networks of dense layers answer alike, whether NumPy or torch computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeostat.model_runtime.contract import Batch
from homeostat.model_runtime.exported_program import open_program
from homeostat.model_runtime.loading import load
from homeostat.records import Feature, ModelSpec, Task
from homeostat.registry.cache import model_folder

WIDTH = 6


class InPlace(torch.nn.Module):
    """A sum that others see as well."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        twice = rows * 2
        twice += rows
        return twice


class Residual(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = rows + self.inner(rows)
        return answer


LAYERS = {
    "relu": torch.nn.ReLU(),
    "leaky": torch.nn.LeakyReLU(0.2),
    "tanh": torch.nn.Tanh(),
    "sigmoid": torch.nn.Sigmoid(),
    "silu": torch.nn.SiLU(),
    "softmax": torch.nn.Softmax(dim=1),
    "dropout": torch.nn.Dropout(),
    "flatten": torch.nn.Flatten(),
    "linear": torch.nn.Linear(WIDTH, WIDTH),
    "no bias": torch.nn.Linear(WIDTH, WIDTH, bias=False),
    "norm": torch.nn.BatchNorm1d(WIDTH),
    "plain norm": torch.nn.BatchNorm1d(WIDTH, affine=False),
    "layer norm": torch.nn.LayerNorm(WIDTH),
    "plain layer norm": torch.nn.LayerNorm(WIDTH, elementwise_affine=False),
    "residual": Residual(),
}


def export(folder: Path, network: torch.nn.Module, shape: tuple[int, ...] = (WIDTH,)) -> ModelSpec:
    path = model_folder(folder) / "data" / "model.pt2"
    path.parent.mkdir(parents=True, exist_ok=True)
    program = torch.export.export(
        network.eval(),
        (torch.zeros(3, *shape),),
        dynamic_shapes=({0: torch.export.Dim("rows")},),
    )
    torch.export.save(program, path)
    return ModelSpec(
        model="small",
        version="1",
        runtime="torch",
        task=Task.CLASSIFICATION,
        features=tuple(Feature(name=f"x{i}") for i in range(int(np.prod(shape)))),
        tensor_shape=shape,
    )


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    names=st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=6),
    scale=st.sampled_from([0.01, 1.0, 50.0]),
)
def test_dense_layers_answer_as_torch_does(tmp_path: Path, names: list[str], scale: float) -> None:
    """Any stack of them, at every output, for numbers small and large."""
    torch.manual_seed(len(names))
    layers = [LAYERS[name] for name in names]
    network = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), *layers).eval()
    export(tmp_path, network)
    rows = torch.randn(9, WIDTH) * scale
    with torch.inference_mode():
        path = model_folder(tmp_path) / "data" / "model.pt2"
        program = open_program(path, None, rows, "it")
        assert program.small is not None
        expected = network(rows).numpy()
    given_rows = rows.numpy().copy()
    (found,) = program.small.run(given_rows)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(given_rows, rows.numpy())  # the journal reads them later


class Attention(torch.nn.Module):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.softmax(rows @ rows.T, 1) @ rows


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (Attention(), (WIDTH,)),
        (InPlace(), (WIDTH,)),
        (torch.nn.Sequential(torch.nn.LayerNorm((2, 3)), torch.nn.Flatten()), (2, 3)),
        (torch.nn.Sequential(torch.nn.GELU(), torch.nn.Linear(WIDTH, 3)), (WIDTH,)),
        (torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten()), (2, 3)),
    ],
    ids=["attention", "in place", "norm of all", "gelu", "last dimension"],
)
def test_everything_else_is_left_to_torch(
    tmp_path: Path, network: torch.nn.Module, shape: tuple[int, ...]
) -> None:
    """And answered as by torch."""
    spec = export(tmp_path, network, shape)
    model = load(tmp_path, spec, embedding=None, classes=(), threads=1)
    rows = torch.randn(5, *shape)
    found = model.predict(Batch(5, rows.flatten(1).numpy()))
    with torch.inference_mode():
        expected = torch.softmax(network.eval()(rows), 1).numpy()
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-4, atol=1e-5)


def test_an_embedding_is_the_same_for_few_rows_and_many(tmp_path: Path) -> None:
    """However many rows come together, and so whoever computes them."""
    torch.manual_seed(3)
    network = torch.nn.Sequential(torch.nn.Linear(WIDTH, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    spec = export(tmp_path, network)
    model = load(tmp_path, spec, embedding="1", classes=(), threads=1)
    rows = np.random.default_rng(0).standard_normal((300, WIDTH)).astype(np.float32)
    together = model.predict(Batch(300, rows))
    for count in (1, 2, 7, 64, 65):
        alone = model.predict(Batch(count, rows[:count]))
        assert together.embedding is not None
        assert alone.embedding is not None
        assert alone.embedding.dtype == together.embedding.dtype == np.float32
        np.testing.assert_allclose(alone.embedding, together.embedding[:count], atol=1e-5)
        assert alone.predictions == together.predictions[:count]
