"""The demo's stage: a project folder, `homeostat up` as a child, a receiver, and traffic."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import httpx
import msgspec

from homeostat.errors import HomeostatError, JobError
from homeostat.settings import FILE_NAME, Settings, load
from loop.demo.receiver import Receiver
from loop.demo.traffic import Traffic
from loop.demo.world import Digits, frame, load_digits
from loop.status import Status

SECRET_VARIABLE = "HOMEOSTAT_WEBHOOK_SECRET"  # noqa: S105 - its name, not its value
START_LIMIT = 120.0


@dataclass
class Stage:
    """Everything an act needs."""

    folder: Path
    settings: Settings
    environ: Mapping[str, str]
    receiver: Receiver
    digits: Digits
    seed: int
    up: subprocess.Popen[bytes]
    console: str = ""
    server: str = ""
    traffic: Traffic | None = None

    def status(self) -> Status:
        answer = httpx.get(f"{self.console}/api/status", timeout=60)  # a busy machine is no failure
        answer.raise_for_status()
        return msgspec.json.decode(answer.content, type=Status)

    def homeostat(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ours, as a user would in another terminal."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "loop", "--project", str(self.folder), *arguments],
            env=dict(self.environ),
            capture_output=True,
            text=True,
            timeout=300,
        )

    def close(self) -> int:
        """End everything; the exit status of `homeostat up`."""
        if self.traffic is not None:
            self.traffic.stop()
        self.up.send_signal(signal.SIGTERM)
        try:
            code = self.up.wait(60)
        except subprocess.TimeoutExpired:
            self.up.kill()
            code = self.up.wait()
        self.receiver.close()
        return code


def set_stage(folder: Path, seed: int, environ: Mapping[str, str]) -> Stage:
    """Write the project and start `homeostat up` on it."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    receiver = Receiver(secret)
    digits = load_digits(seed)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    project = files("loop.demo").joinpath("project")
    text = project.joinpath(FILE_NAME).read_text()
    text = text.replace("{receiver}", receiver.url).replace("{seed}", str(seed))
    (folder / FILE_NAME).write_text(text)
    (folder / "train.py").write_text(project.joinpath("train.py.txt").read_text())
    frame(digits.train).to_parquet(folder / "data" / "train.parquet", index=False)
    frame(digits.test).to_parquet(folder / "data" / "test.parquet", index=False)
    child_environ = {**environ, SECRET_VARIABLE: secret, "PYTHONUNBUFFERED": "1"}
    log = folder / "up.log"
    with log.open("wb") as output:
        up = subprocess.Popen(
            [sys.executable, "-P", "-m", "loop", "--project", str(folder), "up"],
            env=child_environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Stage(
        folder=folder,
        settings=load(folder, child_environ),
        environ=child_environ,
        receiver=receiver,
        digits=digits,
        seed=seed,
        up=up,
    )


def wait_until_serving(stage: Stage) -> None:
    """Until the first version is trained, gated, promoted and answers."""
    deadline = time.monotonic() + START_LIMIT
    home = stage.settings.home
    while time.monotonic() < deadline:
        if stage.up.poll() is not None:
            break
        with contextlib.suppress(FileNotFoundError, httpx.HTTPError, msgspec.DecodeError):
            stage.console = msgspec.json.decode((home / "console.json").read_bytes())["url"]
            stage.server = msgspec.json.decode((home / "serving.json").read_bytes())["url"]
            if httpx.get(f"{stage.server}/health/ready", timeout=5).is_success:
                return
            _give_up_early(stage.status())
        time.sleep(0.2)
    tails = "\n".join(
        f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-15:])
        for log in [stage.folder / "up.log", *sorted(stage.settings.logs_path.glob("*.log"))]
        if log.exists()
    )
    raise JobError(f"no version served within {START_LIMIT:g} s of the start", tail=tails)


def _give_up_early(status: Status) -> None:
    failed = next((run for run in status.runs if run.stage in ("failed", "rejected")), None)
    if failed is not None:
        gate = status.gates.get(failed.run_id)
        raise HomeostatError(
            f"the first version {failed.stage}: {failed.error or (gate and gate.reason)}"
        )


def demo_environ() -> Mapping[str, str]:
    """Ours, without settings meant for another project."""
    return {k: v for k, v in os.environ.items() if not k.startswith("HOMEOSTAT_")}
