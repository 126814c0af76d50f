"""homeostat score"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from homeostat.errors import Unavailable
from homeostat.records import VersionRef
from homeostat.settings import Settings
from loop.commands.common import environ, say, settings_of, terminal

if TYPE_CHECKING:
    from homeostat.scoring.job import Format
    from homeostat.scoring.run import Loaded, Outcome, Progress

SOME_BAD = 3  # exit status: it ended, and some rows have no answer
TRY_LATER = 75  # EX_TEMPFAIL of sysexits.h: something is away, and the same command may work later
KEEP = ("all", "others", "none")
NAME = r"[A-Za-z0-9_-]+"


@click.command()
@click.argument("input")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--version", help="Version to score with; default: the champion.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["parquet", "csv", "delta"]),
    help="Default: by OUTPUT's ending; a folder is Parquet.",
)
@click.option(
    "--keep",
    default="all",
    show_default=True,
    help="Columns of INPUT in the output: all, others (than the model's), none, or names: a,b,c",
)
@click.option("--prefix", default="", help="Before the names of the columns that are added.")
@click.option("--id-column", help="Column with ids of your own; default: new ones.")
@click.option("--tensor", help="Column of lists that holds a whole row of a tensor.")
@click.option("--log", is_flag=True, help='Log the rows, with the role "batch": no traffic.')
@click.option("--strict", is_flag=True, help="End at the first row without an answer.")
@click.option(
    "--workers", type=click.IntRange(1), help="Processes; default: as many as are worth it."
)
@click.option(
    "--run",
    "name",
    default="",
    help="Name of this run, where several append to one Delta table: each name appends once.",
)
@click.option("--restart", is_flag=True, help="Begin anew; what was begun is removed.")
@click.pass_obj
def command(
    project: Path,
    input: str,
    output: Path,
    version: str | None,
    format_: Format | None,
    keep: str,
    prefix: str,
    id_column: str | None,
    tensor: str | None,
    log: bool,
    strict: bool,
    workers: int | None,
    name: str,
    restart: bool,
) -> None:
    """Score the rows of INPUT with a version: Parquet or CSV (a file or a folder) or a Delta table.

    OUTPUT is a .parquet or .csv file, or a folder: of Parquet files, or a Delta table. Killed and
    given again, the command goes on where it stopped. Exits 3 when rows had no answer: they are in
    OUTPUT.score/bad_rows.csv; 75 when something is away, and the same command may work later.
    """
    from homeostat.journal.encoding.recording_settings import recording_of
    from homeostat.scoring.job import Options
    from homeostat.scoring.run import Request, score

    settings, format_ = settings_of(project), format_ or _format(output)
    if name and format_ != "delta":
        raise click.UsageError("--run: only a Delta table (--format delta) is appended to")
    if name and not re.fullmatch(NAME, name):
        raise click.UsageError('--run: letters, digits, "-" and "_" only: it names a folder')
    options = Options(
        input=input if "://" in input else str(Path(input).resolve()),
        format=format_,
        keep=keep if keep in KEEP else tuple(filter(None, keep.split(","))),  # type: ignore[arg-type]
        prefix=prefix,
        id_column=id_column,
        tensor=tensor,
        log=log,
        strict=strict,
    )
    request = Request(
        settings=settings,
        recording=recording_of(settings, environ()),
        output=output.resolve(),
        options=options,
        find_version=lambda: _found(settings, version),
        wanted=version,
        processes=workers,
        restart=restart,
        name=name,
    )
    try:
        with _bar(terminal) as (progress, loaded):
            outcome = score(request, progress, loaded)
    except Unavailable as error:
        click.secho(f"{error}; the same command goes on where it stopped", fg="red", err=True)
        raise SystemExit(TRY_LATER) from None
    for line in _sentences(outcome, output):
        say(line)
    raise SystemExit(SOME_BAD if outcome.bad else 0)


def _format(output: Path) -> Format:
    if (output / "_delta_log").is_dir():
        return "delta"
    ending = output.suffix.lower()
    if ending not in ("", ".parquet", ".csv") and not output.is_dir():
        raise click.UsageError(
            f"OUTPUT: {output.name}: a file ends in .parquet or .csv, and a folder's name in "
            "neither; for a folder of such a name, say --format parquet, csv or delta"
        )
    return "csv" if ending == ".csv" else "parquet"


def _found(settings: Settings, version: str | None) -> VersionRef:
    """The version named, or the champion: in the cache when it returns."""
    from homeostat.registry.feature_names import feature_names
    from loop.scoring import champion, in_cache

    ref = champion(settings) if version is None else None
    wanted = version if ref is None else ref.version
    assert wanted is not None
    return in_cache(settings, wanted, ref, lambda: feature_names(settings))


def _sentences(outcome: Outcome, output: Path) -> Iterator[str]:
    answered = outcome.rows - outcome.bad
    new = outcome.rows - outcome.rows_before
    speed = f", {new / outcome.seconds:,.0f} rows/s" if new and outcome.seconds else ""
    yield (
        f"{answered:,} rows answered by version {outcome.version} in {output} "
        f"({outcome.seconds:,.1f} s{speed})"
    )
    if outcome.rows_before:
        yield f"{outcome.rows_before:,} rows were scored by an earlier run of the same command"
    if outcome.bad_rows is not None:
        yield f"{outcome.bad:,} rows have no answer: {outcome.bad_rows}"


@contextmanager
def _bar(console: Console) -> Iterator[tuple[Progress, Loaded]]:
    bar = ProgressBar(
        TextColumn("scoring"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[rows]:,} rows, {task.fields[speed]:,.0f} rows/s"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("scoring", total=None, rows=0, speed=0.0)
    first: list[int] = []  # rows that were there when this run began

    def progress(done: int, of: int, rows: int) -> None:
        first.append(rows) if not first else None
        elapsed = bar.tasks[task].elapsed or 0.0
        speed = (rows - first[0]) / elapsed if elapsed else 0.0
        bar.update(task, completed=done, total=of, rows=rows, speed=speed)

    def loaded(version: str) -> None:
        click.secho(f"version {version} is loaded; scoring", err=True, dim=True)
        bar.reset(task, completed=int(bar.tasks[task].completed))  # its clock

    with bar:
        yield progress, loaded
