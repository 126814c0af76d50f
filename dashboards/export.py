"""A folder that Grafana and Prometheus read at their start: dashboards, data source, rules."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dashboards.provisioned_files import PROVISIONED, RULES, rules
from homeostat.errors import SettingsError

FOLDER_UID = "homeostat"
DATASOURCE_UID = "homeostat-prometheus"
SCRAPE_EVERY = "15s"
TARGETS = ("127.0.0.1:8100", "127.0.0.1:8101")  # the server's and the console's default ports


def export(
    folder: Path,
    *,
    prometheus_url: str,
    targets: Sequence[str] = TARGETS,
    dashboards_path: str | None = None,
) -> list[Path]:
    """Write the tree; the files written.

    `targets` are the addresses Prometheus scrapes. `dashboards_path` is where Grafana will find
    the dashboards, if not at their place in `folder` (in a container, say). What an older export
    left behind and nobody builds any more is removed, so that Grafana removes it too.
    """
    if not prometheus_url.startswith(("http://", "https://")):
        raise SettingsError(f'"{prometheus_url}" is not the address of a Prometheus server')
    folder = folder.resolve()
    path = dashboards_path or str(folder / "dashboards")
    files = {
        "provisioning/dashboards/homeostat.yaml": _provider(path),
        "provisioning/datasources/homeostat.yaml": _datasource(prometheus_url),
        f"prometheus/{RULES}": rules(),
        "prometheus/prometheus.yml": _prometheus(targets),
    }
    for file in sorted(PROVISIONED.glob("*.json")):
        files[f"dashboards/{file.name}"] = file.read_text()
    for stale in folder.glob("dashboards/homeostat-*.json"):
        if f"dashboards/{stale.name}" not in files:
            stale.unlink()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return [folder / name for name in files]


def _provider(path: str) -> str:
    return f"""\
# Grafana: copy or mount as provisioning/dashboards/homeostat.yaml
apiVersion: 1
providers:
  - name: homeostat
    orgId: 1
    type: file
    folder: Homeostat
    folderUid: {FOLDER_UID}
    disableDeletion: false
    allowUiUpdates: false
    updateIntervalSeconds: 30
    options:
      path: {json.dumps(path)}
      foldersFromFilesStructure: false
"""


def _datasource(url: str) -> str:
    return f"""\
# Grafana: copy or mount as provisioning/datasources/homeostat.yaml
apiVersion: 1
prune: true
datasources:
  - name: Homeostat Prometheus
    uid: {DATASOURCE_UID}
    type: prometheus
    access: proxy
    url: {json.dumps(url)}
    isDefault: false
    editable: false
    jsonData:
      timeInterval: {SCRAPE_EVERY}
      httpMethod: POST
"""


def _prometheus(targets: Sequence[str]) -> str:
    return f"""\
# Prometheus: prometheus --config.file=prometheus.yml
global:
  scrape_interval: {SCRAPE_EVERY}
  evaluation_interval: {SCRAPE_EVERY}
rule_files:
  - {RULES}
scrape_configs:
  - job_name: homeostat
    static_configs:
      - targets: {json.dumps(list(targets))}
"""
