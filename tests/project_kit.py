"""A user's project on scikit-learn's breast cancer data, and the real processes around it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer

from loop.status import Status

T = TypeVar("T")
TARGET = "benign"

# As somebody had it before: it picks its own experiment, autologs nothing, knows nothing of us.
TRAINING = """
import argparse
import mlflow
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

parser = argparse.ArgumentParser()
parser.add_argument("--data")
parser.add_argument("--spoil", action="store_true")
arguments = parser.parse_args()
rows = pd.read_parquet(arguments.data)
features, target = rows.drop(columns="benign"), rows["benign"]
if arguments.spoil:
    target = target.sample(frac=1, random_state=0).to_numpy()
mlflow.set_experiment("my old experiment")
with mlflow.start_run():
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(features, target)
    mlflow.sklearn.log_model(
        model, name="anything", input_example=features.head(3), pip_requirements=["scikit-learn"]
    )
print("trained on", len(rows))
"""

SETTINGS = """
mode = "{mode}"
[model]
name = "cancer"
training_data = "data/train.parquet"
target = "benign"
[serving]
port = 0
poll = "100ms"
[journal]
commit_every = "1s"
[registry]
ui = false
[console]
port = 0
[monitor]
every = "{every}"
window = "{window}"
min_rows = 300
min_labels = 150
false_alarms = "1 per d"
[retrain]
command = ["python", "train.py", "--data", "{{train}}"]
cooldown = "1s"
budget = "100 per d"
max_rows = 3000
time_limit = "60s"
[gate]
test_set = "data/test.parquet"
margin = 0.05
{more}
"""


def rows(seed: int) -> pd.DataFrame:
    found = load_breast_cancer(as_frame=True)
    frame = found.frame.rename(columns={"target": TARGET})
    frame.columns = [name.replace(" ", "_") for name in frame.columns]
    shuffled: pd.DataFrame = frame.sample(frac=1, random_state=seed).reset_index(drop=True)
    return shuffled


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def make_project(folder: Path, *, mode: str = "act", checks: bool = True, more: str = "") -> Path:
    """Without checks every few seconds, a loop imports less at its start and leaves a core to what
    is tested."""
    (folder / "data").mkdir(parents=True)
    frame = rows(0)
    frame[:300].to_parquet(folder / "data" / "train.parquet", index=False)
    frame[300:450].to_parquet(folder / "data" / "test.parquet", index=False)
    (folder / "train.py").write_text(TRAINING)
    every, window = ("5s", "10s") if checks else ("10m", "10m")
    (folder / "homeostat.toml").write_text(
        SETTINGS.format(mode=mode, every=every, window=window, more=more)
    )
    return folder


def environ(**more: str) -> Mapping[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HOMEOSTAT_", "MLFLOW_"))}
    return {**clean, "PYTHONUNBUFFERED": "1", **more}


def homeostat(
    project: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as a user would."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "loop", "--project", str(project), *arguments],
        env=dict(env or environ()),
        capture_output=True,
        text=True,
        timeout=200,
    )


def start(
    project: Path, command: str, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    with (project / f"{command}.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "loop", "--project", str(project), command],
            env=dict(env or environ()),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


@contextmanager
def running(
    project: Path, command: str, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that stays, ended by SIGTERM; what it printed is shown when a test fails."""
    process = start(project, command, env)
    try:
        yield process
    except BaseException:
        show_logs(project)
        raise
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
        if process.poll() is None:
            process.kill()
            process.wait()


def show_logs(project: Path) -> None:
    for log in (*project.glob("*.log"), *project.glob(".homeostat/logs/*.log")):
        sys.stdout.write(f"--- {log.name}\n{log.read_text()[-6000:]}\n")


def status(project: Path) -> Status:
    done = homeostat(project, "status", "--json", "--limit", "100")
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=Status)


def glance(project: Path) -> Status:
    """As the status page tells it, newest 20 of each kind: to look often starts no process."""
    url = address(project, "console")
    try:
        if url is not None:
            answer = httpx.get(f"{url}/api/status", timeout=60).raise_for_status()
            return msgspec.json.decode(answer.content, type=Status)
    except httpx.TransportError:  # it is not there yet, or no more
        pass
    return status(project)


def present(found: T | None) -> T:
    assert found is not None
    return found


def until(what: str, ask: Callable[[], T | None], seconds: float = 240) -> T:
    """Wait for a truthy answer; the test's own time limit is the last word."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = ask()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come within {seconds:g} s")


def address(project: Path, name: str) -> str | None:
    try:
        return str(
            msgspec.json.decode((project / ".homeostat" / f"{name}.json").read_bytes())["url"]
        )
    except FileNotFoundError:
        return None


def noisy(frame: pd.DataFrame, count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Rows as production sends them: drawn again and again, never quite the same."""
    drawn = frame.sample(count, replace=True, random_state=int(rng.integers(2**31)))
    features = drawn.drop(columns=TARGET)
    jitter = rng.normal(1, 0.01, features.shape)
    return (features * jitter).assign(**{TARGET: drawn[TARGET].to_numpy()})
