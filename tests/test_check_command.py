"""`homeostat check`: what it says before it has anything to show."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from serving_kit import make_project

from homeostat.errors import NotReady
from loop.cli import cli


def test_it_says_at_once_what_it_does(tmp_path: Path) -> None:
    """Not on the output that programs read, whatever comes after."""
    settings = make_project(tmp_path / "project", "")
    done = CliRunner().invoke(cli, ["--project", str(settings.project), "check", "--json"])
    assert isinstance(done.exception, NotReady)  # no version serves
    assert done.stderr == "checking the newest window\n"
    assert done.stdout == ""
