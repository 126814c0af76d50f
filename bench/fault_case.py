"""A server under a fault: what is watched of it, and whether it kept its promises."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from bench.contest import Started
from bench.processes import ROOT, environment, python
from bench.steady import Connection, Told

MODEL = "bench"
LOOK = 0.2  # seconds between two looks at the memory
MOST_GROWTH = 64.0  # MiB during a fault: the first failure of each kind loads what it needs
MOST_SLOPE = 12.0  # MiB a minute in its second half; if every row stayed it would be 24

# It ends without Python's own end: a thread of Arrow's may still hold Python objects then, and
# aborts the process.
IDS = """
import json, os, sys
from deltalake import DeltaTable
table = DeltaTable(sys.argv[1]).to_pyarrow_table(columns=["prediction_id"])
print(json.dumps(table["prediction_id"].to_pylist()), flush=True)
os._exit(0)
"""


@dataclass(frozen=True)
class Watched:
    policy: str
    place: Path
    server: Started
    table: str
    environ: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one server under one fault did."""

    fault: str
    policy: str
    sent: int  # rows
    logged: int  # rows answered with 200
    refused: int  # rows answered with 503
    stored: int  # rows in the table
    counters: Mapping[str, int]
    slowest: float  # seconds, of predictions
    slowest_look: float  # seconds, of health and metrics
    memory: Sequence[tuple[float, float]]  # seconds since the fault began, MiB
    wrong: Sequence[str]

    @property
    def start(self) -> float:
        return self.memory[0][1]

    @property
    def most(self) -> float:
        return max(each for _, each in self.memory)

    @property
    def slope(self) -> float:
        """MiB a minute, by least squares over the second half of the fault."""
        later = self.memory[len(self.memory) // 2 :]
        times, sizes = np.array(later).T
        return float(np.polyfit(times, sizes, 1)[0] * 60)


class Looks:
    """Memory, health and metrics of a server, again and again."""

    def __init__(self, server: Started) -> None:
        self._process = psutil.Process(server.process.pid)
        self._connection = Connection(server.url)
        self._stopping = False
        self._began = 0.0
        self.memory: list[tuple[float, float]] = []
        self.slowest = 0.0
        self.wrong: Counter[str] = Counter()

    def begin(self) -> None:
        self._began = time.monotonic()

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        while not self._stopping:
            await asyncio.sleep(LOOK)
            if self._began:
                size = self._process.memory_info().rss / 2**20
                self.memory.append((time.monotonic() - self._began, size))
            for path in ("/health/ready", "/metrics"):
                await self._look(path)
        self._connection.close()

    async def _look(self, path: str) -> None:
        began = time.monotonic()
        status = (await self._connection.ask("GET", path)).status
        self.slowest = max(self.slowest, time.monotonic() - began)
        if status != 200:
            self.wrong[f"{path} answered {status}"] += 1


async def case_of(fault: str, w: Watched, told: Told, looks: Looks, already: int) -> Case:
    connection = Connection(w.server.url)
    flushed = await connection.ask("POST", f"/models/{MODEL}/flush", b"{}")
    connection.close()
    names = ("received", "stored", "dropped", "rejected", "sampled_out")
    counters = {name: await counter(w.server.url, name) for name in names}
    table = Counter(await asyncio.to_thread(_ids, w))
    own = Counter({each: count for each, count in table.items() if "-" in each and len(each) < 30})
    wrong = [f"{what} ({count} times)" for what, count in (told.others + looks.wrong).items()]
    wrong += [] if flushed.status == 200 else [f"flush answered {flushed.status}"]
    wrong += discrepancies(w.policy, told, counters, own, already)
    case = Case(
        fault=fault,
        policy=w.policy,
        sent=told.rows,
        logged=len(told.logged),
        refused=len(told.refused),
        stored=sum(own.values()),
        counters=counters,
        slowest=told.slowest,
        slowest_look=looks.slowest,
        memory=looks.memory,
        wrong=(),
    )
    curve = " ".join(f"{size:.0f}" for _, size in case.memory[:: max(1, len(case.memory) // 30)])
    if case.most - case.start > MOST_GROWTH:
        wrong.append(f"its memory grew from {case.start:.0f} to {case.most:.0f} MiB: {curve}")
    if case.memory[-1][0] > 30 and case.slope > MOST_SLOPE:
        wrong.append(f"its memory grows by {case.slope:.1f} MiB a minute: {curve}")
    return Case(**{**vars(case), "wrong": wrong})


def discrepancies(
    policy: str, told: Told, counters: Mapping[str, int], table: Counter[str], already: int
) -> list[str]:
    """What callers were told, what was counted and what is in the table, against each other."""
    logged, refused = set(told.logged), set(told.refused)
    checks: list[tuple[bool, str]] = [
        (max(table.values(), default=0) <= 1, "rows are in the table more than once"),
        (table.keys() <= logged, f"{len(table.keys() - logged)} rows in the table that nobody has"),
        (
            counters["received"]
            == sum(counters[name] for name in ("stored", "dropped", "rejected", "sampled_out")),
            f"the counters do not add up: {dict(counters)}",
        ),
        (
            counters["received"] - already == len(logged),
            f"{len(logged)} rows were answered, {counters['received'] - already} received",
        ),
        (
            len(logged) - len(table) == counters["dropped"],
            f"{len(logged) - len(table)} answered rows are not in the table, "
            f"{counters['dropped']} counted as dropped",
        ),
    ]
    if policy == "drop":
        checks.append((not refused, f"{len(refused)} rows were refused"))
        checks.append((counters["dropped"] > 0, "the limit was not reached: nothing was dropped"))
    else:
        checks.append((logged <= table.keys(), f"{len(logged - table.keys())} rows are lost"))
        checks.append((len(refused) > 0, "the limit was not reached: nothing was refused"))
    return [message for right, message in checks if not right]


async def counter(url: str, name: str) -> int:
    connection = Connection(url)
    text = (await connection.ask("GET", "/metrics")).body.decode()
    connection.close()
    start = f"homeostat_journal_{name}_total{{"
    found = [line.split()[-1] for line in text.splitlines() if line.startswith(start)]
    return int(float(found[0]))


def _ids(w: Watched) -> list[str]:
    """Read without our own reader."""
    done = subprocess.run(
        python("-P", "-c", IDS, w.table),
        env=environment(PYTHONPATH=str(ROOT), **w.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{w.table} cannot be read:\n{done.stderr[-2000:]}")
    ids: list[str] = json.loads(done.stdout)
    return ids
