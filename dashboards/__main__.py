"""python -m dashboards build [--check] | export FOLDER | sync"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from dashboards.export import TARGETS, export
from homeostat.errors import HomeostatError


@click.group()
def main() -> None:
    """Grafana dashboards and Prometheus rules."""


@main.command()
@click.option("--check", is_flag=True, help="Change nothing; fail when something is wrong.")
def build(check: bool) -> None:
    """Build what is shipped. Needs the development dependencies."""
    from dashboards import build as building  # Grafana's SDK is not there for users

    if not check:
        building.write()
    problems = building.problems()
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        sys.exit(1)


@main.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--prometheus", default="http://127.0.0.1:9090", help="Its address, for Grafana.")
@click.option("--target", "targets", multiple=True, default=TARGETS, help="What it scrapes.")
@click.option("--dashboards-path", help="Where Grafana finds the dashboards, if not in FOLDER.")
def export_command(
    folder: Path, prometheus: str, targets: tuple[str, ...], dashboards_path: str | None
) -> None:
    """Write a provisioning folder."""
    for file in export(
        folder, prometheus_url=prometheus, targets=targets, dashboards_path=dashboards_path
    ):
        click.echo(file)


@main.command("sync")
@click.option("--url", required=True, help="Grafana's address.")
@click.option(
    "--token-env", default="GRAFANA_TOKEN", help="Variable with a service account's token."
)
@click.option("--prune", is_flag=True, help="Delete ours that are shipped no more.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
def sync_command(url: str, token_env: str, prune: bool, dry_run: bool) -> None:
    """Put the dashboards into a running Grafana."""
    from dashboards.grafana_sync import sync

    token = os.environ.get(token_env, "")
    if not token:
        raise click.ClickException(f"put a service account's token into the variable {token_env}")
    for change in sync(url, token, dry_run=dry_run, prune=prune):
        click.echo(str(change))


if __name__ == "__main__":
    try:
        main(prog_name="python -m dashboards")
    except HomeostatError as error:
        sys.exit(f"Error: {error}")
