"""Convolutions on a processor, with their weights laid out beforehand as oneDNN computes with them.

torch lays them out at every call: for one image that takes longer than the convolution. A batch
normalization behind a convolution becomes a part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.fx import GraphModule, Node

from homeostat.model_runtime.small_network import ABSOLUTE, RELATIVE

aten = torch.ops.aten
_DEFAULTS: tuple[Any, ...] = (None, [1, 1], [0, 0], [1, 1], 1)  # bias, stride, padding, dilation …


class _Convolution(NamedTuple):
    weight: torch.Tensor
    bias: torch.Tensor | None
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int


def pack_convolutions(flat: GraphModule, sample: torch.Tensor) -> int:
    """Changes the network where it can, and says of how many convolutions. Raises RuntimeError,
    AttributeError where this torch cannot do it, or the answers to the sample differ: the network
    is of no use then."""
    expected = flat.forward(sample)
    packed = sum([_pack(flat, node) for node in list(flat.graph.nodes)])
    if not packed:
        return 0
    _drop_unused(flat)
    flat.recompile()
    if not _alike(flat.forward(sample), expected):
        raise RuntimeError("packed convolutions answer otherwise")
    return packed


def _pack(flat: GraphModule, node: Node) -> bool:
    found = _convolution(flat, node)
    if found is None:
        return False
    chain = [node]
    norm = _norm_behind(node)
    whole = None if norm is None else _with_norm(flat, norm, found)
    if norm is not None and whole is not None:
        chain.append(norm)
        found = whole
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    weight = reorder(
        found.weight.to_mkldnn(), found.padding, found.stride, found.dilation, found.groups, None
    )
    number = len(list(flat.buffers()))
    flat.register_buffer(f"packed_weight_{number}", weight)
    with flat.graph.inserting_before(node):  # later, its input may be another one
        bias = None
        if found.bias is not None:
            flat.register_buffer(f"packed_bias_{number}", found.bias)
            bias = flat.graph.get_attr(f"packed_bias_{number}")
        made = flat.graph.call_function(
            torch.ops.mkldnn._convolution_pointwise.default,
            (
                node.args[0],
                flat.graph.get_attr(f"packed_weight_{number}"),
                bias,
                found.padding,
                found.stride,
                found.dilation,
                found.groups,
                "none",  # a ReLU of oneDNN's makes 0 of what is not a number
                [],
                "",
            ),
        )
    chain[-1].replace_all_uses_with(made)
    for each in reversed(chain):
        flat.graph.erase_node(each)
    return True


def _convolution(flat: GraphModule, node: Node) -> _Convolution | None:
    """Of images, in float32, with weights of the network itself."""
    if node.op != "call_function" or node.target is not aten.conv2d.default or node.kwargs:
        return None
    given: list[Any] = [*node.args[1:], *_DEFAULTS[len(node.args) - 2 :]]
    weight, bias = (_tensor(flat, each) for each in given[:2])
    if weight is None or weight.dtype is not torch.float32 or (bias is None) != (given[1] is None):
        return None
    return _Convolution(weight, bias, *given[2:])


def _with_norm(flat: GraphModule, norm: Node, found: _Convolution) -> _Convolution | None:
    """With the batch normalization of its results; None for one that learns as it goes."""
    given: Any = norm.args
    scale, shift, mean, variance = (
        None if each is None else _tensor(flat, each) for each in given[1:5]
    )
    if mean is None or variance is None or given[5]:
        return None
    factor = torch.rsqrt(variance + given[7])
    if scale is not None:
        factor = factor * scale
    bias = (-mean if found.bias is None else found.bias - mean) * factor
    if shift is not None:
        bias = bias + shift
    return found._replace(weight=found.weight * factor.view(-1, 1, 1, 1), bias=bias)


def _norm_behind(node: Node) -> Node | None:
    """The batch normalization, where nothing else takes the convolution's results."""
    users = list(node.users)
    only = len(users) == 1 and users[0].target is aten.batch_norm.default
    return users[0] if only and users[0].args[0] is node else None


def _tensor(flat: GraphModule, node: Any) -> torch.Tensor | None:
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    owner, _, name = str(node.target).rpartition(".")
    found = getattr(flat.get_submodule(owner), name)
    return found.detach() if isinstance(found, torch.Tensor) else None


def _drop_unused(flat: GraphModule) -> None:
    """The weights as they came need not be kept beside the others."""
    gone = [node for node in flat.graph.nodes if node.op == "get_attr" and not node.users]
    for node in gone:
        flat.graph.erase_node(node)
    used = {str(node.target) for node in flat.graph.nodes if node.op == "get_attr"}
    for path in {str(node.target) for node in gone} - used:
        owner, _, name = path.rpartition(".")
        delattr(flat.get_submodule(owner), name)


def _alike(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    return all(
        one.shape == other.shape and torch.allclose(one, other, rtol=RELATIVE, atol=ABSOLUTE)
        for one, other in zip(found, expected, strict=True)
        if isinstance(other, torch.Tensor)
    )
