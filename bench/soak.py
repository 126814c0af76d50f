"""An hour of load with a swap every minute: no answer fails, none is mixed, memory stays flat."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench import contest, load
from bench.contest import Contestant, Started
from bench.options import Options, Steps
from bench.processes import call, own_mib, python
from bench.results import Aim, Findings, Table, missed
from homeostat.jobs import write_atomically
from homeostat.records import Rollout, VersionRef, from_json, to_json
from homeostat.settings import load as load_settings

PACKAGES = ("torch", "uvicorn", "uvloop", "deltalake", "pyarrow")
HOUR, SWAP = 3600.0, 60.0  # seconds
CONNECTIONS = 64
SHARE = 0.7  # of capacity
FLAT = 24.0  # MiB an hour, by the second half's slope
LOOKS = 720  # at the memory, from the beginning to the end: a commit's rows make it go up and down

# The answer's version and its first probability have to belong together.
LUA = """
wrk.method = "POST"
wrk.path = "/predict"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[%s]==]
local expected = {["1"] = %r, ["2"] = %r}
wrong, first, second = 0, 0, 0
function delay()
  return math.floor(%f * -math.log(1 - math.random()) + 0.5)
end
function response(status, headers, body)
  local version = body:match('"version":"(%%d+)"')
  local said = tonumber(body:match('"probabilities":%%[%%[([%%d%%.e%%-]+)') or "")
  if status ~= 200 or not said or math.abs(said - expected[version]) > 1e-4 then
    wrong = wrong + 1
  elseif version == "1" then
    first = first + 1
  else
    second = second + 1
  end
end
local threads = {}
function setup(thread) table.insert(threads, thread) end
done = function(summary, latency, requests)
  local of = threads[1]
  io.write(string.format(
    '\\n{"wrong": %%d, "first": %%d, "second": %%d, "p50": %%f, "p99": %%f, "failed": %%d}\\n',
    of:get("wrong"), of:get("first"), of:get("second"),
    latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


@dataclass(frozen=True, kw_only=True)
class Look:
    """At the server, so many seconds after the beginning."""

    at: float
    memory: float  # MiB, its own


def others() -> list[str]:
    return [load.require_wrk()]


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    seconds = 40.0 if options.quick else max(options.seconds, 0) if options.seconds > 60 else HOUR
    swap = 5.0 if options.quick else SWAP
    steps.tell("making the model, in two versions")
    call("-m", "bench.model_project", str(folder), "--second")
    server = Contestant(
        name="homeostat",
        command=lambda project, _: python("-m", "serving", "--project", str(project)),
        own=True,
    )
    with contest.started(server, folder) as entered:
        capacity = _capacity(entered, folder, options)
        soaked = _soak(entered, folder, SHARE * capacity, seconds, swap, steps)
    return _findings(soaked, capacity, seconds)


@dataclass(frozen=True, kw_only=True)
class Soaked:
    wrong: int
    failed: int
    first: int  # answers of each version
    second: int
    p50: float
    p99: float
    swaps: int
    looks: Sequence[Look]

    @property
    def answers(self) -> int:
        return self.first + self.second

    @property
    def slope(self) -> float:
        """MiB an hour in the second half: the first one fills caches and allocators' pools."""
        half = [look for look in self.looks if look.at >= self.looks[-1].at / 2]
        per_second = np.polyfit([look.at for look in half], [look.memory for look in half], 1)[0]
        return float(per_second * HOUR)


def _capacity(server: Started, folder: Path, options: Options) -> float:
    script = load.write_script(server.body, folder)
    load.apply(server.url, script, connections=CONNECTIONS, seconds=options.warm_up)
    return load.apply(
        server.url, script, connections=CONNECTIONS, seconds=max(3.0, options.warm_up)
    ).per_second


def _soak(
    server: Started, folder: Path, rate: float, seconds: float, swap: float, steps: Steps
) -> Soaked:
    steps.expect(LOOKS)
    steps.tell(f"{rate:,.0f} requests a second for {seconds / 60:.0f} minutes")
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--timeout", "10s"]
    script = _script(folder, server.body, 1000 * CONNECTIONS / rate - 1.0)
    client = subprocess.Popen(
        [*command, "--script", str(script), server.url], stdout=subprocess.PIPE, text=True
    )
    swaps, looks, began = _Swaps(folder), [], time.monotonic()
    for number in range(1, LOOKS + 1):
        _swap_until(swaps, began, began + number * seconds / LOOKS, swap)
        looks.append(Look(at=time.monotonic() - began, memory=own_mib(server.process)))
        steps.done()
    said, _ = client.communicate(timeout=60)
    told = json.loads(said.strip().splitlines()[-1])
    return Soaked(**told, swaps=swaps.epoch - 1, looks=looks)


def _script(folder: Path, body: bytes, pause: float) -> Path:
    first, second = (
        json.loads((folder / name).read_text())["probabilities"][0]
        for name in ("example.json", "second.json")
    )
    path = folder / "soak.lua"
    path.write_text(LUA % (body.decode(), first, second, pause))
    return path


class _Swaps:
    """Versions 1 and 2 in turn, as the loop would promote them."""

    def __init__(self, folder: Path) -> None:
        self._path = load_settings(folder, {}).rollout_path
        self._rollout = from_json(self._path.read_bytes(), Rollout)
        second = from_json((folder / "second.ref").read_bytes(), VersionRef)
        self._refs = (second, self._rollout.champion)
        self.epoch = self._rollout.epoch

    def next(self) -> None:
        champion = self._refs[(self.epoch - 1) % 2]
        self.epoch += 1
        rollout = replace(
            self._rollout, champion=champion, epoch=self.epoch, created_at=datetime.now(UTC)
        )
        write_atomically(self._path, to_json(rollout))


def _swap_until(swaps: _Swaps, began: float, until: float, every: float) -> None:
    while (now := time.monotonic()) < until:
        due = began + swaps.epoch * every
        if now >= due:
            swaps.next()
        else:
            time.sleep(min(due, until) - now)


def _findings(soaked: Soaked, capacity: float, seconds: float) -> Findings:
    aims = [
        Aim(said=f"{soaked.failed} answers failed; none may", met=not soaked.failed),
        Aim(said=f"{soaked.wrong} answers were mixed or wrong; none may be", met=not soaked.wrong),
        Aim(
            said=f"Memory grew by {soaked.slope:+.1f} MiB an hour in the second half; at most "
            f"{FLAT:g} are asked (a run of minutes says little of it)",
            met=soaked.slope <= FLAT,
        ),
    ]
    looks = soaked.looks
    shown = [looks[round(at)] for at in np.linspace(0, len(looks) - 1, 9)]
    return Findings(
        title="A long run",
        setup=(
            f"{seconds / 60:.0f} minutes at {SHARE:.0%} of capacity ({capacity:,.0f} requests a "
            f"second), {CONNECTIONS} connections, logging and metrics on, another version "
            f"promoted {soaked.swaps} times. Each answer's probabilities are compared with those "
            "of the version it names."
        ),
        tables=[
            Table(
                title="What came of it",
                columns=["", "found", "aim"],
                rows=[
                    ["answers", f"{soaked.answers:,}", ""],
                    ["of version 1 / 2", f"{soaked.first:,} / {soaked.second:,}", ""],
                    ["failed", str(soaked.failed), "0"],
                    ["mixed or wrong", str(soaked.wrong), "0"],
                    ["p50 / p99, ms", f"{soaked.p50:.2f} / {soaked.p99:.1f}", ""],
                    ["memory, MiB an hour", f"{soaked.slope:+.1f}", f"at most {FLAT:g}"],
                ],
            ),
            Table(
                title="Memory of the server",
                columns=["minutes", *(f"{look.at / 60:.1f}" for look in shown)],
                rows=[["MiB of its own", *(f"{look.memory:.0f}" for look in shown)]],
            ),
        ],
        notes=[str(aim) for aim in aims],
        figures={"soaked": soaked},
        missed=missed(aims, quick=seconds < SWAP),
    )
