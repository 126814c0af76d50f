"""Networks of convolutions answer alike, with their weights laid out beforehand or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_model_runtime_small import export

from homeostat.model_runtime.contract import Batch
from homeostat.model_runtime.exported_program import open_program
from homeostat.model_runtime.loading import load
from homeostat.model_runtime.packed_convolutions import pack_convolutions
from homeostat.registry.cache import model_folder

CHANNELS, SIDE = 4, 8
SHAPE = (CHANNELS, SIDE, SIDE)


def convolution(**more: object) -> torch.nn.Conv2d:
    given_more: dict[str, object] = {"kernel_size": 3, "padding": 1} | more
    return torch.nn.Conv2d(CHANNELS, CHANNELS, **given_more)  # type: ignore[arg-type]


class Residual(torch.nn.Module):
    """The sum's ReLU does not belong to the convolution, whose result is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = convolution()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.inner(images)
        summed: torch.Tensor = torch.relu(images + found) * found
        return summed


def norm(*, affine: bool = True) -> torch.nn.BatchNorm2d:
    """One that has seen something."""
    made = torch.nn.BatchNorm2d(CHANNELS, affine=affine)
    made(torch.randn(16, *SHAPE) * 3 + 1)
    return made


MAKERS: dict[str, Callable[[], torch.nn.Module]] = {
    "conv": convolution,
    "no bias": lambda: convolution(bias=False),
    "depthwise": lambda: convolution(groups=CHANNELS),
    "wide": lambda: convolution(dilation=2, padding=2),
    "same": lambda: convolution(padding="same"),
    "mirrored": lambda: convolution(padding_mode="reflect"),
    "norm": norm,
    "plain norm": lambda: norm(affine=False),
    "relu": torch.nn.ReLU,
    "relu in place": lambda: torch.nn.ReLU(inplace=True),
    "tanh": torch.nn.Tanh,
    "residual": Residual,
    "dropout": torch.nn.Dropout2d,
}


def network(names: list[str]) -> torch.nn.Sequential:
    torch.manual_seed(len(names))
    last = [torch.nn.AvgPool2d(SIDE), torch.nn.Flatten(), torch.nn.Linear(CHANNELS, 3)]
    return torch.nn.Sequential(convolution(stride=1), *[MAKERS[each]() for each in names], *last)


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(names=st.lists(st.sampled_from(sorted(MAKERS)), max_size=6), rows=st.integers(1, 9))
def test_any_stack_answers_as_torch_does(tmp_path: Path, names: list[str], rows: int) -> None:
    made = network(names).eval()
    export(tmp_path, made, SHAPE)
    images = torch.randn(rows, *SHAPE)
    with torch.inference_mode():
        path = model_folder(tmp_path) / "data" / "model.pt2"
        program = open_program(path, None, torch.randn(4, *SHAPE), "it")
        torch.testing.assert_close(program.run(images)[0], made(images), rtol=1e-3, atol=1e-4)


def test_an_embedding_behind_convolutions_is_what_the_module_gave(tmp_path: Path) -> None:
    made = torch.nn.Sequential(
        convolution(), norm(), torch.nn.ReLU(), torch.nn.AvgPool2d(SIDE), torch.nn.Flatten()
    )
    spec = export(tmp_path, torch.nn.Sequential(*made, torch.nn.Linear(CHANNELS, 3)), SHAPE)
    model = load(tmp_path, spec, embedding="4", classes=(), threads=1)
    images = torch.randn(5, *SHAPE)
    found = model.predict(Batch(5, images.flatten(1).numpy())).embedding
    assert found is not None
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(found), made.eval()(images))


def test_convolutions_are_packed_with_what_follows_them(tmp_path: Path) -> None:
    """Else the rest of this file would say nothing."""
    made = network(["norm", "relu", "conv", "plain norm", "no bias", "relu in place"]).eval()
    export(tmp_path, made, SHAPE)
    flat = torch.export.load(model_folder(tmp_path) / "data" / "model.pt2").module()
    with torch.inference_mode():
        images = torch.randn(4, *SHAPE)
        expected = flat(images)
        assert pack_convolutions(flat, images) == 3
    names = [str(node.target) for node in flat.graph.nodes if node.op == "call_function"]
    assert sum("_convolution_pointwise" in each for each in names) == 3
    assert not any("conv2d" in each or "norm" in each for each in names)
    assert len(dict(flat.named_parameters())) == 2  # of the dense layer
    torch.testing.assert_close(flat(images), expected, rtol=1e-4, atol=1e-5)


def test_what_is_no_number_stays_so(tmp_path: Path) -> None:
    """Else a caller gets a confident answer to what overflowed."""
    made = network(["relu", "conv", "relu in place"]).eval()
    spec = export(tmp_path, made, SHAPE)
    model = load(tmp_path, spec, embedding=None, classes=(), threads=1)
    assert model.packed_convolutions == 2  # type: ignore[attr-defined]
    images = torch.full((4, CHANNELS * SIDE * SIDE), 3e38) * torch.tensor([1.0, -1.0]).repeat(128)
    found = model.predict(Batch(4, images.numpy()))
    with torch.inference_mode():
        expected = made(images.reshape(4, *SHAPE))
    assert found.probabilities is not None
    assert bool(expected.isnan().any())
    assert bool(torch.from_numpy(found.probabilities).isnan().any())


class Clamped(torch.nn.Module):
    """Changes a convolution's input once it was read."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = convolution(), norm()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        doubled = images * 2
        found = self.one(doubled)
        doubled.clamp_(max=0.1)
        mean: torch.Tensor = (self.norm(found) + doubled).mean(dim=(2, 3))
        return mean


def test_a_convolution_reads_its_input_when_it_did(tmp_path: Path) -> None:
    made = Clamped().eval()
    export(tmp_path, made, SHAPE)
    images = torch.randn(3, *SHAPE) * 10
    with torch.inference_mode():
        path = model_folder(tmp_path) / "data" / "model.pt2"
        program = open_program(path, None, torch.zeros(4, *SHAPE), "it")
        assert program.packed == 1
        torch.testing.assert_close(program.run(images)[0], made(images), rtol=1e-3, atol=1e-4)


def test_what_is_to_be_computed_in_bf16_is_not_packed(tmp_path: Path) -> None:
    made = network(["norm"]).eval()
    export(tmp_path, made, SHAPE)
    path = model_folder(tmp_path) / "data" / "model.pt2"
    assert open_program(path, None, torch.randn(4, *SHAPE), "it").packed == 1
    assert open_program(path, None, torch.randn(4, *SHAPE), "it", packs=False).packed == 0
