"""homeostat dashboards"""

from __future__ import annotations

from pathlib import Path

import click

from homeostat.errors import SettingsError
from loop.commands.common import environ, terminal


@click.group()
def command() -> None:
    """Grafana dashboards and Prometheus rules as files."""


@command.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--prometheus-url", default="http://localhost:9090", show_default=True)
def export(folder: Path, prometheus_url: str) -> None:
    """Write a provisioning tree for Grafana, and rules and a scrape config for Prometheus."""
    from dashboards.export import export as write

    for path in write(folder, prometheus_url=prometheus_url):
        terminal.print(str(path), soft_wrap=True)


@command.command()
@click.option("--url", required=True, help="Grafana's address.")
@click.option("--token-env", default="GRAFANA_TOKEN", show_default=True, help="Variable to read.")
@click.option("--prune", is_flag=True, help="Also remove dashboards of ours that are no more.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
def sync(url: str, token_env: str, prune: bool, dry_run: bool) -> None:
    """Bring a running Grafana in line through its API."""
    from dashboards.grafana_sync import sync as bring_in_line

    token = environ().get(token_env)
    if not token:
        raise SettingsError(f"put a Grafana service-account token into ${token_env}")
    for line in bring_in_line(url, token, dry_run=dry_run, prune=prune):
        terminal.print(str(line))
