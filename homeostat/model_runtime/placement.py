"""Where a model computes, how precisely, and how much of a GPU's memory it may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from homeostat.errors import ModelError

if TYPE_CHECKING:
    from homeostat.settings_of_serving import ServingSettings

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """As the settings say; `resolved` where it is known what the machine has."""

    device: Device = "cpu"
    precision: Precision = "float32"
    memory: float = 1.0  # share of the GPU's memory that this process may take
    batch_rows: int = 1  # of the largest batch: what it takes is kept free

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def resolved(self, has_gpu: Callable[[], bool], missing: str) -> Placement:
        """On one device; raises ModelError, saying what is `missing`, where a GPU is asked for and
        there is none. A server on a CPU does not even look for one."""
        if self.device == "cpu" or has_gpu():
            return self if self.device == "cpu" else replace(self, device="cuda")
        if self.device == "auto":
            return replace(self, device="cpu")
        raise ModelError(f'serving.device is "cuda", and {missing}; or set it to "auto" or "cpu"')


CPU = Placement()


def placement_of(serving: ServingSettings) -> Placement:
    return Placement(
        device=serving.device,
        precision=serving.precision,
        memory=serving.gpu_memory,
        batch_rows=serving.max_batch_rows,
    )
