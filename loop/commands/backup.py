"""homeostat backup"""

from __future__ import annotations

from pathlib import Path

import click

from loop.clock import utc_now
from loop.commands.common import settings_of, terminal
from loop.commands.progress import progress_bar

PLACE = click.argument("place", type=click.Path(path_type=Path))


@click.group()
def command() -> None:
    """All that the platform keeps, of one moment: the log, the state, the versions that serve."""


@command.command()
@PLACE
@click.option(
    "--without-journal", is_flag=True, help="Leave the log out: its store has copies of its own."
)
@click.option("--without-artifacts", is_flag=True, help="Leave out MLflow's files of versions.")
@click.pass_obj
def create(project: Path, place: Path, without_journal: bool, without_artifacts: bool) -> None:
    """Back up to PLACE while everything runs.

    PLACE is a folder, in which each backup is a folder of its own that shares unchanged files with
    the last one; or a file whose name ends in .tar.
    """
    from loop.backup.creating import Wanted, create

    wanted = Wanted(journal=not without_journal, artifacts=not without_artifacts)
    with progress_bar(terminal) as progress:
        made = create(
            settings_of(project), place.resolve(), wanted, now=utc_now(), progress=progress
        )
    terminal.print(f"{made.files} files, {made.bytes / 1e6:.1f} MB: {made.place}", soft_wrap=True)
    for what in made.missing:
        terminal.print(f"[yellow]not there, and so not in the backup:[/] {what}", soft_wrap=True)


@command.command()
@PLACE
@click.option("--force", is_flag=True, help="Put aside what is in home; replace the state.")
@click.pass_obj
def restore(project: Path, place: Path, force: bool) -> None:
    """Bring back the backup in PLACE: a .tar file, a backup's folder, or a folder of backups, of
    which the newest is taken.

    Every file is verified first. The project's homeostat.toml has to be there, and nothing of the
    project may run.
    """
    from loop.backup.restoring import restore
    from loop.backup.sources import open_source

    settings = settings_of(project)
    with open_source(place) as source, progress_bar(terminal) as progress:
        done = restore(settings, source, force=force, now=utc_now(), progress=progress)
        created = source.manifest.created_at
    serves = f"version {done.champion} serves" if done.champion else "no version serves yet"
    terminal.print(f"Restored what was at {created:%F %T} UTC; {serves}. Next: homeostat up")
    if done.rows:
        terminal.print(f"{done.rows} rows that waited for the log are in its tables now")
    for name in done.left:
        terminal.print(f"the table {name} was there already, and was left as it is")
    if done.aside is not None:
        terminal.print(f"what was there before: {done.aside}", soft_wrap=True)
    if done.replaced_state is not None:
        terminal.print(f"the state that was replaced: {done.replaced_state}", soft_wrap=True)


@command.command()
@PLACE
def verify(place: Path) -> None:
    """Hash every file of a backup again."""
    from loop.backup.sources import open_source

    with open_source(place) as source, progress_bar(terminal) as progress:
        source.verify(progress)
        count = len(source.manifest.files)
    terminal.print(f"{count} files, unharmed: {source.place}", soft_wrap=True)
