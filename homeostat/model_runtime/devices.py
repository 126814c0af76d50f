"""Which GPU each of several processes computes on, and how much of its memory it may take.

The process says so to CUDA before anything of CUDA is loaded, hence without torch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Share:
    device: str | None  # as CUDA_VISIBLE_DEVICES names it; None: whichever CUDA takes first
    sharing: int  # processes on it, this one too


def share_of(number: int, count: int, devices: Sequence[str]) -> Share:
    """Of one of `count` processes. One after the other gets the next GPU. Where nobody knows what
    GPUs there are, CUDA would have them all on its first one."""
    if not devices:
        return Share(None, count)
    place, count = number % len(devices), max(count, number + 1)
    return Share(devices[place], len(range(place, count, len(devices))))


def visible_devices(environ: Mapping[str, str], counted: Callable[[], int]) -> tuple[str, ...]:
    """As CUDA reads the variable: up to the first that is none. Without it all that there are."""
    named = environ.get(VISIBLE)
    if named is None:
        return tuple(map(str, range(counted())))
    devices: list[str] = []
    for name in map(str.strip, named.split(",")):
        if not name or name.startswith("-"):
            break
        devices.append(name)
    return tuple(devices)


def count_devices() -> int:
    """By NVML, which comes with the driver; 0 where it is not to be had."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        found = ctypes.c_uint(0)
        if nvml.nvmlInit_v2() != 0:
            return 0
        try:
            return found.value if nvml.nvmlDeviceGetCount_v2(ctypes.byref(found)) == 0 else 0
        finally:
            nvml.nvmlShutdown()
    except (OSError, AttributeError):  # no library, or one that has not got these
        return 0
