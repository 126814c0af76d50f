"""Room on a GPU for one more version. Where two do not fit, versions leave before one is loaded,
the one that serves last and only for its successor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from homeostat.errors import NotReady
from homeostat.model_runtime.placement import placement_of
from homeostat.model_runtime.residency import Resident, needed, to_evict
from homeostat.records import VersionRef
from homeostat.registry.cache import entry_path, model_folder, read_spec
from homeostat.settings_of_serving import ServingSettings

if TYPE_CHECKING:
    from serving.versions.served_model import ServedModel
    from serving.versions.version import Version

log = logging.getLogger(__name__)

# For a runtime, beside what ONNX models hold: bytes of the GPU that this process may still take;
# None where a version of that runtime goes to no GPU.
Left = Callable[[ServingSettings, str, int], int | None]


def left_on_gpu(serving: ServingSettings, runtime: str, beside: int) -> int | None:
    """As the driver says; torch knows of its own memory alone, hence `beside`. Raises ModelError
    where the settings ask for a GPU and there is none."""
    if serving.device == "cpu" or runtime not in ("torch", "onnx"):
        return None
    placement = placement_of(serving)
    if runtime == "onnx":
        from homeostat.model_runtime.onnx_program import placed

        if not placed(placement).on_gpu:
            return None  # without torch, which an ONNX model on a CPU does not need
    from homeostat.model_runtime import gpu

    placement = gpu.placed(placement)
    return gpu.room(placement, beside).left if placement.on_gpu else None


@contextlib.asynccontextmanager
async def room_for(
    model: ServedModel,
    ref: VersionRef,
    *,
    succeeds: bool,
    failed: str | None = None,
    models: Iterable[ServedModel],
    loading: asyncio.Lock,
    still: Callable[[], None],
    left: Left = left_on_gpu,
) -> AsyncIterator[None]:
    """While a version of the cache is loaded. `succeeds`: it is to serve, and not on trial.
    `failed`: why it could not be loaded when the one that serves left for it. That is not done
    twice: raises NotReady unless it fits beside. `models`: all that share the GPU in this process,
    this one too; versions of the others stay. They share `loading` too: two that load at once
    would count the same room. `still`: raises where it is not to be loaded any more, so that nobody
    leaves for it."""
    runtime = read_spec(entry_path(model.settings.cache_path, model.name, ref.version)).runtime

    async def room() -> int | None:
        return await asyncio.to_thread(left, model.settings.serving, runtime, held_by_onnx(models))

    if await room() is None:
        yield
        return
    async with loading:
        free = await room() or 0
        await _make_room(model, ref, free, still, succeeds=succeeds, failed=failed)
        yield


async def _make_room(
    model: ServedModel,
    ref: VersionRef,
    room: int,
    still: Callable[[], None],
    *,
    succeeds: bool,
    failed: str | None,
) -> None:
    entry = entry_path(model.settings.cache_path, model.name, ref.version)
    sizes = [path.stat().st_size for path in model_folder(entry).rglob("*") if path.is_file()]
    held = [memory_of(version) for version in model.versions]
    need = max(needed(sum(sizes), 0), *held, 0)  # activations are like those of the ones before
    gone = leaving(model, need, room, succeeds=succeeds and failed is None)
    if failed is not None and room + sum(map(memory_of, gone)) < need:
        raise NotReady(
            f"{failed}; the one before it serves, and does not leave for it again: it is tried "
            "once there is room for both, or after a rollback and another promotion"
        )
    for version in gone:
        still()  # while the one before it left, it may have become the one that serves
        log.warning(
            "%s: version %s leaves the GPU's memory, to make room for version %s (about %d MB)%s",
            model.name,
            version.ref.version,
            ref.version,
            need >> 20,
            ": nothing serves until that one is loaded" if version is model.current else "",
        )
        await model.evict(version, f"version {ref.version} is being loaded in its place")


def leaving(model: ServedModel, need: int, left: int, *, succeeds: bool) -> Sequence[Version]:
    """Which of a model's versions go, in this order: the one before, the one on trial, and for its
    successor the one that serves."""
    order = (model.previous, model.trial, model.current if succeeds else None)
    found = {id(each): each for each in order if each is not None and memory_of(each) > 0}
    gone = to_evict(need, left, [Resident(str(at), memory_of(v)) for at, v in found.items()])
    return [each for at, each in found.items() if str(at) in gone]


def held_by_onnx(models: Iterable[ServedModel]) -> int:
    """Bytes of a GPU, about, which torch's own account leaves out."""
    held = [version for model in models for version in model.versions]
    return sum(memory_of(each) for each in held if each.model.spec.runtime == "onnx")


def memory_of(version: Version) -> int:
    """Bytes of a GPU, about; 0 for a version that is on none."""
    return int(getattr(version.model, "memory_bytes", 0))


def give_back() -> None:
    """What a load that failed left behind."""
    from homeostat.model_runtime import gpu  # torch, which whoever evicted has asked already

    gpu.give_back()
