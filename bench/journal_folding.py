"""`python -m bench.journal_folding URL DAYS HOW`: the sum of 25 columns over the newest days of a
log of bench.journal_hours, in batches or as one window."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from bench.journal_hours import DAY, FEATURES, MODEL
from homeostat.journal.reader import Journal
from homeostat.records import Task


def main(url: str, days: int, how: str) -> None:
    journal = Journal(url, MODEL, Task.CLASSIFICATION)
    newest = journal.newest_time()
    assert newest is not None
    span = (newest - days * DAY, newest + timedelta(seconds=1), FEATURES[:25])
    parts: Any = journal.batches(*span) if how == "batches" else [journal.window(*span)]
    total = rows = 0
    for part in parts:
        rows += part.num_rows
        total += sum(pc.sum(part[name]).as_py() for name in FEATURES[:25])
    print(json.dumps({"rows": rows, "sum": total, "peak_mib": peak_mib()}))


def peak_mib() -> float:
    """Of this program alone: what the kernel reports at a process's end counts the memory of the
    one that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) / 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
