"""All of this package that talks to CUDA: copies, the limit of memory, and what is free."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram

from homeostat.model_runtime.placement import Placement


def limit_memory(placement: Placement) -> None:
    """Enforced by torch's allocator from here on: past it, an allocation fails."""
    if placement.on_gpu and placement.memory < 1:
        torch.cuda.set_per_process_memory_fraction(placement.memory)


def memory_limit(placement: Placement) -> int | None:
    """In bytes; None where the process may take it all."""
    if placement.memory >= 1:
        return None
    return int(torch.cuda.get_device_properties(0).total_memory * placement.memory)


def placed(placement: Placement) -> Placement:
    """On the GPU where torch finds one and the settings allow it. Raises ModelError."""
    return placement.resolved(
        torch.cuda.is_available,
        "torch finds no GPU here: install a torch with CUDA, and the driver",
    )


def moved(exported: ExportedProgram, device: str) -> ExportedProgram:
    """The program with its weights, and the devices its graph names, on another device."""
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(exported, device)


class Ferry:
    """Brings rows to the device and answers back. Used by one thread at a time.

    Rows go through memory that the system cannot swap out (pinned), kept from batch to batch: from
    there the GPU fetches them by itself, at full speed.
    """

    def __init__(self, placement: Placement) -> None:
        self._device = placement.device
        self._pinned = placement.on_gpu
        self._buffer: torch.Tensor | None = None

    def there(self, rows: torch.Tensor) -> torch.Tensor:
        if not self._pinned:
            return rows.to(self._device)
        count = rows.numel()
        if self._buffer is None or self._buffer.dtype != rows.dtype or len(self._buffer) < count:
            self._buffer = torch.empty(_roomy(count), dtype=rows.dtype, pin_memory=True)
        staged = self._buffer[:count].view(rows.shape)
        staged.copy_(rows)
        return staged.to(self._device, non_blocking=True)

    def back(self, outputs: Sequence[Any]) -> list[torch.Tensor]:
        """Waits until they are computed: the buffer is free again then. What is in bf16, which
        NumPy has not got, comes as float32."""
        here = [output.to("cpu") for output in outputs]
        return [each.float() if each.dtype is torch.bfloat16 else each for each in here]


def _roomy(count: int) -> int:
    """The next power of two, so that batches of many sizes share a buffer."""
    return 1 << max(0, math.ceil(math.log2(max(1, count))))


def ferried(
    run: Callable[[torch.Tensor], Sequence[Any]], placement: Placement
) -> Callable[[torch.Tensor], Sequence[Any]]:
    """The program for rows in the machine's memory. With bf16, matrix products and convolutions
    are computed in it; sums stay in float32."""
    if not placement.on_gpu and placement.precision == "float32":
        return run
    ferry, half = Ferry(placement), placement.precision == "bf16"

    def ferried(rows: torch.Tensor) -> Sequence[Any]:
        there = ferry.there(rows)
        with torch.autocast(placement.device, dtype=torch.bfloat16, enabled=half):
            outputs = run(there)
        return ferry.back(outputs)

    return ferried


@dataclass(frozen=True)
class Room:
    """A GPU's memory as this process sees it, in bytes."""

    limit: int  # what the process may take
    taken: int  # by it
    free: int  # on the device, whoever has the rest

    @property
    def left(self) -> int:
        return min(self.limit - self.taken, self.free)


def room(placement: Placement, beside: int = 0) -> Room:
    """`beside`: what this process took by others than torch."""
    free, total = torch.cuda.mem_get_info()
    taken = torch.cuda.memory_reserved() + beside
    return Room(limit=int(total * placement.memory), taken=taken, free=free)


def free() -> int:
    """Bytes of the device, whoever has the rest."""
    return int(torch.cuda.mem_get_info()[0])


def peak(work: Callable[[], object]) -> int:
    """How many bytes a piece of work takes at its most, beside what was taken before."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def give_back() -> None:
    """What nobody refers to any more, to whoever asks next: a graph refers to itself in circles,
    and torch keeps what is freed for later."""
    gc.collect()
    torch.cuda.empty_cache()
