"""One worker's part of the GPUs: taken before anything of CUDA is loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import replace

from homeostat.model_runtime.devices import VISIBLE, Share, count_devices, share_of, visible_devices
from homeostat.settings import Settings

log = logging.getLogger(__name__)


def take_gpu(
    projects: Sequence[Settings],
    number: int,
    count: int,
    environ: MutableMapping[str, str],
    counted: Callable[[], int] = count_devices,
) -> list[Settings]:
    """For worker `number` of `count`: has CUDA show it one GPU, and divides `serving.gpu_memory`
    among those that have the same one. Where no project may use a GPU, nothing is changed."""
    if all(settings.serving.device == "cpu" for settings in projects):
        return list(projects)
    share = share_of(number, count, visible_devices(environ, counted))
    if share.device is not None:
        environ[VISIBLE] = share.device
    divided = [_divided(settings, share.sharing) for settings in projects]
    if share.device is not None or any(each.serving.device == "cuda" for each in projects):
        log.info("%s", _told(share, max(each.serving.gpu_memory for each in divided)))
    return divided


def _divided(settings: Settings, sharing: int) -> Settings:
    memory = settings.serving.gpu_memory / sharing
    return replace(settings, serving=replace(settings.serving, gpu_memory=memory))


def _told(share: Share, memory: float) -> str:
    gpu = "the first GPU" if share.device is None else f"GPU {share.device}"
    whose = "this worker" if share.sharing == 1 else f"this worker and {share.sharing - 1} more"
    return f"{gpu} is for {whose}; each may take {memory:.0%} of its memory"
