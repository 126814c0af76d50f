"""An exported network (MLflow's pt2) as one plain function, with the embedding as an output.

A forward hook on a module of `program.module()` never fires: the modules there only hold
parameters. `torch.export.unflatten` rebuilds modules whose hooks fire, but interprets its graph
node by node: 0.3 ms a call where the network itself takes 0.03 ms. So the embedding's node is
found in the flat graph, made an output of it, and checked once against what a hook on the
unflattened network sees. Where it cannot be found, the unflattened network itself serves.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram, UnflattenedModule
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

from homeostat.errors import ModelError
from homeostat.model_runtime.gpu import moved
from homeostat.model_runtime.output_names import OUTPUT_NAMES
from homeostat.model_runtime.packed_convolutions import pack_convolutions
from homeostat.model_runtime.small_network import SmallNetwork, small_network

# torch keeps the program it is reading in a global variable, as Python does its warnings' filters:
# of two threads that load at once, one would fail.
_TORCH_READS = threading.Lock()


@dataclass(frozen=True)
class Program:
    """`run` gives the flat outputs; `output` and `embedding` are positions among them, and among
    those of `small`, which does the same for few rows."""

    run: Callable[[torch.Tensor], Sequence[Any]]
    packed: int  # convolutions whose weights are laid out beforehand
    output: int
    embedding: int | None = None
    small: SmallNetwork | None = None


def open_program(
    path: Path,
    embedding: str | None,
    sample: torch.Tensor,
    where: str,
    device: str = "cpu",
    *,
    packs: bool = True,
) -> Program:
    """Load a pt2 file; `sample` is a batch of rows on the device to check it with. `packs`: its
    convolutions may be packed, which compute in float32 whatever is asked for. Raises
    ModelError."""
    with _TORCH_READS, warnings.catch_warnings():
        # torch warns of its own use of a deprecated name whenever it copies a program.
        warnings.simplefilter("ignore", FutureWarning)
        exported = torch.export.load(path)
        if device != "cpu":
            exported = moved(exported, device)
        packs = packs and device == "cpu" and sample.dtype is torch.float32
        return _opened(exported, embedding, sample, where, packs=packs)


def _opened(
    exported: ExportedProgram,
    embedding: str | None,
    sample: torch.Tensor,
    where: str,
    *,
    packs: bool,
) -> Program:
    _check_inputs(exported, where)
    flat = _flat_module(exported)
    positions = _output_positions(exported)
    named = _named_output(positions, embedding)
    output = _main_output(positions, named, where)
    small = small_network(flat) if sample.device.type == "cpu" else None
    if embedding is None or named is not None:
        run, packed = _packed(exported, sample) if packs else (None, 0)
        return Program(run or flat.forward, packed, output, named, small)
    module, seen = _hooked(exported, embedding, sample, where)
    count = len(pytree.tree_leaves(positions))
    if _add_output(flat, embedding):
        found = flat.forward(sample)[count]
        if found.shape == seen.shape and torch.equal(found, seen):
            small = small_network(flat) if sample.device.type == "cpu" else None
            run, packed = _packed(exported, sample, embedding) if packs else (None, 0)
            return Program(run or flat.forward, packed, output, count, small)
    return Program(_interpreted(module, embedding), 0, output, count)


def _packed(
    exported: ExportedProgram, sample: torch.Tensor, embedding: str | None = None
) -> tuple[Callable[[torch.Tensor], Sequence[Any]] | None, int]:
    """The flat network with packed convolutions, and how many they are; None where it has none, or
    this torch cannot do it. With the module's output beside the others, where one is named."""
    flat = _flat_module(exported)
    if embedding is not None:
        _add_output(flat, embedding)
    try:
        packed = pack_convolutions(flat, sample)
    except (RuntimeError, AttributeError, TypeError):
        return None, 0
    return (flat.forward if packed else None), packed


def _check_inputs(exported: ExportedProgram, where: str) -> None:
    names = exported.graph_signature.user_inputs
    if len(names) != 1:
        raise ModelError(f"{where} takes {len(names)} inputs ({names}); one tensor is served")
    node = next(node for node in exported.graph.nodes if node.name == names[0])
    rows = node.meta["val"].shape[0]
    if isinstance(rows, int):
        raise ModelError(
            f"{where} was exported for batches of exactly {rows} rows; log it with an "
            "input_example of two or more rows, so that the number of rows stays free"
        )


def _flat_module(exported: ExportedProgram) -> GraphModule:
    """The network as straight-line code: no guards, no pytrees, as fast as the original."""
    module = exported.module()
    assert isinstance(module, GraphModule)
    for node in list(module.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            module.graph.erase_node(node)
    module.graph.set_codegen(CodeGen())
    module.recompile()
    return module


def _output_positions(exported: ExportedProgram) -> Any:
    """What the network returns, with positions in the flat outputs in place of tensors."""
    spec = exported.call_spec.out_spec
    assert spec is not None
    return pytree.tree_unflatten(list(range(spec.num_leaves)), spec)


def _named_output(positions: Any, name: str | None) -> int | None:
    if name is None:
        return None
    if isinstance(positions, Mapping):
        found = positions.get(name)
        return found if isinstance(found, int) else None
    if isinstance(positions, tuple | list) and len(positions) == 2 and name == "embedding":
        return int(positions[1])
    return None


def _main_output(positions: Any, embedding: int | None, where: str) -> int:
    if isinstance(positions, int):
        return positions
    if isinstance(positions, Mapping):
        named = [positions[name] for name in OUTPUT_NAMES if name in positions]
        others = [found for found in positions.values() if found != embedding]
        candidates = named[:1] or others
    else:
        candidates = list(positions)[:1]
    if len(candidates) == 1 and isinstance(candidates[0], int):
        return candidates[0]
    raise ModelError(
        f"{where} returns {positions}, and none of it is plainly the prediction; name that "
        f'output "{OUTPUT_NAMES[0]}"'
    )


def _hooked(
    exported: ExportedProgram, name: str, sample: torch.Tensor, where: str
) -> tuple[UnflattenedModule, torch.Tensor]:
    """The network as modules, and what the named one gave for the sample."""
    module = torch.export.unflatten(exported)
    seen: dict[str, Any] = {}
    for path, inner in module.named_modules():
        inner.register_forward_hook(lambda _m, _i, out, path=path: seen.update({path: out}))
    module(sample)
    usable = [
        path
        for path, out in seen.items()
        if path and isinstance(out, torch.Tensor) and out.ndim == 2 and len(out) == len(sample)
    ]
    if name in usable:
        return torch.export.unflatten(exported), seen[name]
    choice = f"modules that give one vector a row: {', '.join(usable) or 'none'}"
    names = {path for path, _ in module.named_modules()}
    if name not in names:
        raise ModelError(f'{where} has no module "{name}" for [serving] embedding; {choice}')
    if name not in seen:
        raise ModelError(
            f'the module "{name}" of {where} did not run, so its output cannot be the embedding; '
            f"{choice}"
        )
    shape = tuple(getattr(seen[name], "shape", ())) or type(seen[name]).__name__
    raise ModelError(
        f'the module "{name}" of {where} gives {shape}, not one vector a row; {choice}'
    )


def _add_output(flat: GraphModule, name: str) -> bool:
    """Make the output of one module an output of the flat graph; False if it is not plain."""
    inside = [node for node in flat.graph.nodes if name in _modules_of(node)]
    leaving = [node for node in inside if any(user not in inside for user in node.users)]
    if len(leaving) != 1:
        return False
    output = flat.graph.output_node()
    # an output node has one argument, the tuple of what is given; its type says less
    output.args = ((*output.args[0], leaving[0]),)  # type: ignore[misc]
    flat.recompile()
    return True


def _modules_of(node: Node) -> set[str]:
    return {path for path, _ in node.meta.get("nn_module_stack", {}).values()}


def _interpreted(module: UnflattenedModule, name: str) -> Callable[[torch.Tensor], Sequence[Any]]:
    seen: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
        seen.append(output)

    module.get_submodule(name).register_forward_hook(keep)

    def run(batch: torch.Tensor) -> Sequence[Any]:
        seen.clear()
        outputs = pytree.tree_leaves(module(batch))
        return (*outputs, seen[-1])

    return run
