"""Room on a GPU for one more version. Where two do not fit, versions leave before one is loaded,
the one that serves last and only for its successor."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from homeostat.model_runtime.placement import placement_of
from homeostat.model_runtime.residency import Resident, needed, to_evict
from homeostat.records import VersionRef
from homeostat.registry.cache import entry_path, model_folder, read_spec

if TYPE_CHECKING:
    from serving.versions.served_model import ServedModel
    from serving.versions.version import Version

log = logging.getLogger(__name__)


async def make_room(model: ServedModel, ref: VersionRef, *, succeeds: bool) -> None:
    """Before a version of the cache is loaded. `succeeds`: it is to serve, and not on trial."""
    serving = model.settings.serving
    entry = entry_path(model.settings.cache_path, model.name, ref.version)
    if serving.device == "cpu" or read_spec(entry).runtime != "torch":
        return
    from homeostat.model_runtime import gpu  # torch, which this version needs anyhow

    placement = gpu.placed(placement_of(serving))
    if not placement.on_gpu:
        return
    sizes = [path.stat().st_size for path in model_folder(entry).rglob("*") if path.is_file()]
    held = [memory_of(version) for version in model.versions]
    need = max(needed(sum(sizes), 0), *held, 0)  # activations are like those of the ones before
    left = (await asyncio.to_thread(gpu.room, placement)).left
    for version in leaving(model, need, left, succeeds=succeeds):
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
    found = [each for each in order if each is not None and memory_of(each) > 0]
    gone = to_evict(need, left, [Resident(str(id(each)), memory_of(each)) for each in found])
    return [each for each in found if str(id(each)) in gone]


def memory_of(version: Version) -> int:
    """Bytes of a GPU, about; 0 for a version that is on none."""
    return int(getattr(version.model, "memory_bytes", 0))
