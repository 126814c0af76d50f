"""Environments of their own for what we compare with, so that no peer is a dependency of ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
PEERS = HERE / ".venv-peers"
GRANIAN = HERE / ".venv-granian"
LITSERVE = "litserve==0.2.19"
GRANIAN_PIN = "granian==2.8.7"
# as ours, so that nobody is faster by a newer library
SAME = ("fastapi", "httptools", "msgspec", "numpy", "pydantic", "torch", "uvicorn", "uvloop")

Tell = Callable[[str], None]


def peers_python(tell: Tell) -> Path:
    """The Python of an environment with LitServe and FastAPI, made on first use (minutes)."""
    python = PEERS / "bin" / "python"
    wanted = [LITSERVE, *(_pin(name) for name in SAME)]
    if not _done(PEERS, wanted):
        tell("installing the peers' environment (once, minutes)")
        _run([sys.executable, "-m", "venv", "--clear", str(PEERS)])
        _run([str(python), "-m", "pip", "install", "--quiet", *wanted])
        _mark(PEERS, wanted)
    return python


def granian_path(tell: Tell) -> Path:
    """A folder for PYTHONPATH that adds Granian to our own environment."""
    if not _done(GRANIAN, [GRANIAN_PIN]):
        tell("installing Granian (once)")
        _run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--no-deps"),
                *("--target", str(GRANIAN), GRANIAN_PIN),
            ]
        )
        _mark(GRANIAN, [GRANIAN_PIN])
    return GRANIAN


def _pin(name: str) -> str:
    return f"{name}=={version(name).partition('+')[0]}"  # not the build, such as +cpu


def _done(folder: Path, wanted: Sequence[str]) -> bool:
    mark = folder / ".installed"
    return mark.exists() and mark.read_text().split() == list(wanted)


def _mark(folder: Path, wanted: Sequence[str]) -> None:
    (folder / ".installed").write_text("\n".join(wanted) + "\n")


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"`{' '.join(command)}` failed:\n{done.stderr[-2000:]}")
