"""Programs that do not begin before a test lets them: they wait in what Python runs first."""

from __future__ import annotations

import os
from pathlib import Path

# What keeps a program on a leash is to notice that its own parent is gone.
FIRST = """
import pathlib, re, sys, time
line = " ".join(sys.orig_argv)
if re.search({held!r}, line) and "homeostat.leash" not in line:
    while not pathlib.Path({begin!r}).exists():
        time.sleep(0.05)
"""


def hold(folder: Path, held: str) -> dict[str, str]:
    """Variables for a program and all that it starts: those whose command line matches wait."""
    folder.mkdir(parents=True)
    first = FIRST.format(held=held, begin=str(folder / "begin"))
    (folder / "sitecustomize.py").write_text(first)
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{before}" if before else str(folder)}


def let_begin(folder: Path) -> None:
    (folder / "begin").touch()
