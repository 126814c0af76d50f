"""Load by wrk, a client that costs little beside the server it measures."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# A connection that is told to pause waits before it asks again, in whole milliseconds; arrivals
# that wait an exponential time are as irregular as independent callers are.
PAUSE = """
function delay()
  return math.floor(%f * -math.log(1 - math.random()) + 0.5)
end
"""
SCRIPT = """
wrk.method = "POST"
wrk.path = "%s"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[%s]==]
done = function(summary, latency, requests)
  io.write(string.format(
    '\\n{"requests": %%d, "microseconds": %%d, "p50": %%f, "p99": %%f, "errors": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.connect + summary.errors.read + summary.errors.write
      + summary.errors.status + summary.errors.timeout))
end
"""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What came of one span of load. Times are in milliseconds."""

    requests: int
    per_second: float
    p50: float
    p99: float
    errors: int
    cpu: float = 0.0  # seconds of wrk's own


def require_wrk() -> str:
    """The program's version; ends the process with what to do where it is absent."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; `apt-get install wrk` (Debian, Ubuntu) brings it")
    # -v prints the version and exits 1
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
    return " ".join((said.stdout + said.stderr).split()[:2])


def write_script(body: bytes, folder: Path, *, pause: float = 0.0, path: str = "/predict") -> Path:
    """`pause`: milliseconds a connection waits on average before it asks again."""
    file = folder / f"load{path.replace('/', '-')}{f'-{pause:.3f}' if pause else ''}.lua"
    file.write_text(SCRIPT % (path, body.decode()) + (PAUSE % pause if pause else ""))
    return file


def write_binary_script(
    body: bytes, folder: Path, *, path: str, headers: Mapping[str, str]
) -> Path:
    """A body that is no text lies in a file beside the script."""
    (folder / "body.bin").write_bytes(body)
    file = folder / "load-binary.lua"
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    lines.append(f'wrk.body = io.open("{folder / "body.bin"}", "rb"):read("*a")')
    file.write_text(SCRIPT % (path, "") + "\n".join(lines) + "\n")
    return file


def apply(url: str, script: Path, *, connections: int, seconds: float) -> Load:
    """Every connection asks, waits for its answer and asks again. Raises SystemExit without any."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, "--script", str(script), url], capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        said = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise SystemExit(f"wrk failed for {url}: {done.stdout}{done.stderr}") from None
    return Load(
        requests=said["requests"],
        per_second=said["requests"] / (said["microseconds"] / 1e6),
        p50=said["p50"] / 1000,
        p99=said["p99"] / 1000,
        errors=said["errors"],
        cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )
