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
MLSERVER_FOLDER = HERE / ".venv-mlserver"
BENTOML_FOLDER = HERE / ".venv-bentoml"
LITSERVE = "litserve==0.2.19"
MLSERVER = "mlserver==1.7.1"
BENTOML = "bentoml==1.4.39"
GRANIAN_PIN = "granian==2.8.7"
# as ours, so that nobody is faster by a newer library
SAME = ("fastapi", "httptools", "msgspec", "numpy", "pydantic", "torch", "uvicorn", "uvloop")

Tell = Callable[[str], None]


def peers_python(tell: Tell) -> Path:
    """The Python of an environment with LitServe and FastAPI, made on first use (minutes)."""
    return _python(PEERS, [LITSERVE, *(_pin(name) for name in SAME)], tell)


def mlserver_python(tell: Tell) -> Path:
    """Its own dependencies do not go together with ours."""
    return _python(MLSERVER_FOLDER, [MLSERVER, _pin("torch")], tell)


def bentoml_python(tell: Tell) -> Path:
    return _python(BENTOML_FOLDER, [BENTOML, _pin("torch")], tell)


def _python(folder: Path, wanted: Sequence[str], tell: Tell) -> Path:
    python = folder / "bin" / "python"
    if not _done(folder, wanted):
        tell(f"installing {wanted[0]} into an environment of its own (once, minutes)")
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", *wanted])
        _mark(folder, wanted)
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
