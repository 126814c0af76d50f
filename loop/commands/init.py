"""homeostat init"""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path

import click

from homeostat.errors import SettingsError
from homeostat.settings import FILE_NAME, load
from loop.commands.common import terminal
from loop.example_data import shop_rows

TRAIN_ROWS, TEST_ROWS = 4000, 1500


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Make FOLDER: commented settings, a training program, and example data, ready to run."""
    if (folder / FILE_NAME).exists():
        raise SettingsError("there is a project here already", file=str(folder / FILE_NAME))
    try:
        (folder / "data").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot be made: {error.strerror}", file=str(folder)) from None
    template = files("loop").joinpath("project_template")
    settings = template.joinpath(FILE_NAME).read_text().replace("{name}", _name(folder))
    (folder / FILE_NAME).write_text(settings)
    (folder / "train.py").write_text(template.joinpath("train.py.txt").read_text())
    (folder / ".gitignore").write_text(template.joinpath("gitignore").read_text())
    rows = shop_rows(TRAIN_ROWS + TEST_ROWS, seed=7)
    rows[:TRAIN_ROWS].to_parquet(folder / "data" / "train.parquet", index=False)
    rows[TRAIN_ROWS:].to_parquet(folder / "data" / "test.parquet", index=False)
    load(folder, {})
    terminal.print(f"Made {folder}/: {FILE_NAME}, train.py, data/. Next:")
    terminal.print(f"  cd {shlex.quote(str(folder))} && homeostat up")


def _name(folder: Path) -> str:
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in folder.resolve().name)
    return name.strip("-.") or "model"
