"""Where and with what something was measured: a figure without it means nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil


@dataclass(frozen=True, kw_only=True)
class Machine:
    date: str
    hardware: str
    software: str
    load_before: float  # of the last minute, a processor: above 0.3 the figures are doubtful


def describe(packages: Sequence[str], more: Sequence[str] = ()) -> Machine:
    """This machine; `packages` are those whose version matters, `more` what other programs say."""
    memory = psutil.virtual_memory().total / 2**30
    software = [f"Python {platform.python_version()}", *map(_with_version, packages), *more]
    return Machine(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        hardware=f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()}",
        software=", ".join(software),
        load_before=round(os.getloadavg()[0] / (os.cpu_count() or 1), 2),
    )


def stolen() -> float:
    """Seconds of all processors, since the start, that a virtual machine's host gave others."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


def _with_version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (absent)"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
