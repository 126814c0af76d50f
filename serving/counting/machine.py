"""What the process and its machine do: CPU, memory, and GPUs where NVML can be asked."""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector

from homeostat.metrics import Instruments

log = logging.getLogger(__name__)


class Machine:
    """Asked at a scrape. `process_cpu_seconds_total`, `process_resident_memory_bytes` and the like
    are prometheus_client's own."""

    def __init__(self, instruments: Instruments, registry: CollectorRegistry) -> None:
        ProcessCollector(registry=registry)
        self._instruments = instruments
        self._nvml = _nvml()

    def refresh(self) -> None:
        nvml, gauge = self._nvml, self._instruments.gauge
        if nvml is None:
            return
        try:
            for number in range(nvml.nvmlDeviceGetCount()):
                device, gpu = nvml.nvmlDeviceGetHandleByIndex(number), str(number)
                used = nvml.nvmlDeviceGetMemoryInfo(device).used
                busy = nvml.nvmlDeviceGetUtilizationRates(device).gpu
                gauge("homeostat_gpu_memory_bytes", gpu=gpu).set(used)
                gauge("homeostat_gpu_utilisation_ratio", gpu=gpu).set(busy / 100)
        except nvml.NVMLError as error:
            log.warning("the GPUs are shown no more: %s", error)
            self._nvml = None


def _nvml() -> Any:
    """The module, initialised; None where there is none, or no driver."""
    if find_spec("pynvml") is None:
        return None
    pynvml: Any = import_module("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
