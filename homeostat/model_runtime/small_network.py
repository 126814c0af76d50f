"""A plain network of dense layers in NumPy: for a few rows, half of what torch takes is the way to
each of its operators, and what that does to the processor's caches is felt by all that follows.

Which networks these are is decided by the operators of the exported graph: any other one and the
network is torch's. What NumPy answers is compared with torch once, on the rows of the warm-up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Node

Array = NDArray[np.float32]
Step = Callable[[Array], Array]
aten = torch.ops.aten
# Sums are made in another order, so the last digits differ.
RELATIVE, ABSOLUTE = 1e-4, 1e-5


@dataclass(frozen=True)
class SmallNetwork:
    """Called with (rows, features) of float32, which it leaves as they are."""

    # whose result each one takes, what it does with it, and whose it adds instead
    steps: tuple[tuple[int, Step, int | None], ...]
    outputs: tuple[int, ...]

    def run(self, rows: Array) -> list[Array]:
        """The outputs that were asked for, as the graph numbers them."""
        values = [rows]
        for source, step, other in self.steps:
            taken = values[source]
            values.append(step(taken) if other is None else taken + values[other])
        return [values[place] for place in self.outputs]


def small_network(flat: GraphModule) -> SmallNetwork | None:
    """None for a network that is not one of dense layers alone."""
    places: dict[Node, int] = {}
    steps: list[tuple[int, Step, int | None]] = []
    tensors: dict[Node, torch.Tensor] = {}
    for node in flat.graph.nodes:
        match node.op:
            case "get_attr":
                tensors[node] = _attribute(flat, node.target)
            case "placeholder" if not places:
                places[node] = 0
            case "call_function" if _is_sum(node, places):
                one, other = node.args
                steps.append((places[one], _same, places[other]))
                places[node] = len(steps)
            case "call_function":
                source = node.args[0]
                step = _step(node, tensors) if source in places else None
                if step is None:
                    return None
                steps.append((places[source], step, None))
                places[node] = len(steps)
            case "output":
                wanted = node.args[0]
                if not all(each in places for each in wanted):
                    return None
                return SmallNetwork(tuple(steps), tuple(places[each] for each in wanted))
            case _:
                return None
    return None


def agrees(network: SmallNetwork, rows: Array, outputs: Sequence[torch.Tensor]) -> bool:
    """Whether it says of these rows what torch does."""
    try:
        found = network.run(rows)
    except (ValueError, TypeError, IndexError):  # a shape that only torch takes
        return False
    return all(
        ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=RELATIVE, atol=ABSOLUTE)
        for ours, theirs in zip(found, [each.numpy() for each in outputs], strict=True)
    )


def _is_sum(node: Node, places: dict[Node, int]) -> bool:
    """Of two results, as around a residual block."""
    plain = node.target is aten.add.Tensor and not node.kwargs
    return plain and all(isinstance(each, Node) and each in places for each in node.args)


def _attribute(module: torch.nn.Module, path: str) -> torch.Tensor:
    owner, _, name = path.rpartition(".")
    found: torch.Tensor = getattr(module.get_submodule(owner), name)
    return found


def _step(node: Node, tensors: dict[Node, torch.Tensor]) -> Step | None:
    make = _MAKERS.get(node.target)
    if make is None or node.kwargs:
        return None
    given: list[Any] = []
    for each in node.args[1:]:
        if isinstance(each, Node):
            if each not in tensors or tensors[each].dtype is not torch.float32:
                return None
            given.append(tensors[each].detach().numpy())
        else:
            given.append(each)
    return make(*given)


def _linear(weight: Array, bias: Array | None = None) -> Step:
    columns = np.ascontiguousarray(weight.T)
    if bias is None:
        return lambda rows: rows @ columns

    def step(rows: Array) -> Array:
        found = rows @ columns
        found += bias
        return found

    return step


def _batch_norm(
    scale: Array | None,
    shift: Array | None,
    mean: Array,
    variance: Array,
    training: bool,
    _momentum: float,
    epsilon: float,
    _fast: bool,
) -> Step | None:
    if training:
        return None
    factor = (1 if scale is None else scale) / np.sqrt(variance + np.float32(epsilon))
    offset = (0 if shift is None else shift) - mean * factor
    return lambda rows: rows * factor + offset


def _layer_norm(
    shape: list[int],
    scale: Array | None = None,
    shift: Array | None = None,
    epsilon: float = 1e-5,
    _fast: bool = True,
) -> Step | None:
    if len(shape) != 1:
        return None
    least = np.float32(epsilon)

    def step(rows: Array) -> Array:
        found: Array = rows - rows.mean(axis=1, keepdims=True)
        found /= np.sqrt((found * found).mean(axis=1, keepdims=True) + least)
        if scale is not None:
            found *= scale
        if shift is not None:
            found += shift
        return found

    return step


def _softmax(dimension: int, *_: None) -> Step | None:
    if dimension not in (1, -1):
        return None

    def step(rows: Array) -> Array:
        powers = np.exp(rows - rows.max(axis=1, keepdims=True))
        found: Array = powers / powers.sum(axis=1, keepdims=True)
        return found

    return step


def _flatten(first: int = 0, last: int = -1) -> Step | None:
    """Rows come flat."""
    return _same if first == 1 and last == -1 else None


def _dropout(_share: float, training: bool) -> Step | None:
    return None if training else _same


def _leaky_relu(slope: float = 0.01) -> Step:
    factor = np.float32(slope)
    return lambda rows: np.where(rows > 0, rows, rows * factor)


def _same(rows: Array) -> Array:
    return rows


def _relu(rows: Array) -> Array:
    return np.maximum(rows, 0)


def _sigmoid(rows: Array) -> Array:
    found: Array = np.reciprocal(1 + np.exp(-rows))
    return found


def _silu(rows: Array) -> Array:
    return rows * _sigmoid(rows)


_MAKERS: dict[Any, Callable[..., Step | None]] = {
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
    aten.layer_norm.default: _layer_norm,
    aten.relu.default: lambda: _relu,
    aten.leaky_relu.default: _leaky_relu,
    aten.tanh.default: lambda: np.tanh,
    aten.sigmoid.default: lambda: _sigmoid,
    aten.silu.default: lambda: _silu,
    aten.softmax.int: _softmax,
    aten.flatten.using_ints: _flatten,
    aten.dropout.default: _dropout,
}
