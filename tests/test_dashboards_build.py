"""What is shipped is what the code builds, and names only what exists."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest

from dashboards import build, lint, rules
from dashboards.export import export
from dashboards.finishing import as_text, expressions, without_strays
from dashboards.provisioned_files import PROVISIONED, dashboards
from homeostat.errors import SettingsError
from homeostat.metrics import METRICS

ROOT = Path(__file__).parent.parent


def overview() -> dict[str, Any]:
    return copy.deepcopy(next(d for d in dashboards() if d["uid"] == "homeostat-overview"))


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_committed_files_are_what_the_code_builds() -> None:
    """`python -m dashboards build --check` finds nothing."""
    assert build.problems() == []


def test_the_check_notices_changed_missing_and_foreign_files(tmp_path: Path) -> None:
    """Each way in which a folder can differ is told."""
    build.write(tmp_path)
    assert build.problems(tmp_path) == []
    (tmp_path / "homeostat-old.json").write_text(as_text(overview()))
    (tmp_path / "homeostat.rules.yml").unlink()
    changed = overview() | {"title": "Mine"}
    (tmp_path / "homeostat-overview.json").write_text(as_text(changed))
    told = "\n".join(build.problems(tmp_path))
    assert "homeostat-overview.json is not what the code builds" in told
    assert "homeostat.rules.yml is not what the code builds" in told
    assert "homeostat-old.json is built by nothing" in told
    assert "another dashboard has the uid homeostat-overview" in told
    build.write(tmp_path)
    assert build.problems(tmp_path) == []


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("sum(rate(homeostat_request_total[5m]))", "no metric is called homeostat_request_total"),
        ("homeostat_request_seconds", "no metric is called homeostat_request_seconds"),
        ("rate(homeostat_rows_total[5m)", "not PromQL"),
        ('homeostat_requests_total{status="200"}', "homeostat_requests_total has no label status"),
        ('homeostat_paused{model="$modell"}', "a variable"),
        ("rate(homeostat_rows_total[$window])", "not PromQL"),
    ],
)
def test_a_wrong_query_is_told(query: str, problem: str) -> None:
    """Unknown metrics, labels and variables, and what is not PromQL."""
    dashboard = overview()
    dashboard["panels"][1]["targets"][0]["expr"] = query
    assert any(problem in told for told in lint.problems_of(dashboard))


def test_histograms_are_known_by_the_names_prometheus_gives_them() -> None:
    """Buckets, sum and count, and `le` only on the buckets."""
    good = (
        'homeostat_request_seconds_bucket{le="0.5"}',
        'homeostat_request_seconds_count{model="x"} / homeostat_request_seconds_sum',
    )
    assert [p for query in good for p in lint.problems_of_promql(query)] == []
    assert list(lint.problems_of_promql('homeostat_request_seconds_sum{le="0.5"}'))


def test_a_badly_made_panel_is_told() -> None:
    """Ids, overlaps, units, descriptions, refIds, data sources, stray keys."""
    dashboard = overview()
    panels = dashboard["panels"]
    panels[2]["id"] = panels[1]["id"]
    panels[3]["gridPos"] = panels[4]["gridPos"]
    del panels[5]["description"]
    del panels[6]["fieldConfig"]["defaults"]["unit"]
    panels[7]["datasource"]["uid"] = "my-prometheus"
    del panels[8]["targets"][0]["refId"]
    dashboard["templating"]["list"][1]["auto"] = True
    dashboard["editable"] = True
    told = "\n".join(lint.problems_of(dashboard))
    for expected in (
        "panel id 2: 2 times",
        "overlap",
        f'panel "{panels[5]["title"]}": no title or no description',
        f'panel "{panels[6]["title"]}": no unit',
        "data source 'my-prometheus'",
        f'panel "{panels[8]["title"]}": refIds',
        "variable model has auto",
        "editable",
    ):
        assert expected in told


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda d: d["uid"])
def test_grafanas_own_types_know_every_field(dashboard: dict[str, Any]) -> None:
    """Read into the SDK's types and written again, nothing is lost: no field is misspelt."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from grafana_foundation_sdk.cog.encoder import JSONEncoder
        from grafana_foundation_sdk.cog.plugins import register_default_plugins
        from grafana_foundation_sdk.models.dashboard import Dashboard

    def again(value: dict[str, Any]) -> dict[str, Any]:
        read = Dashboard.from_json(copy.deepcopy(value))
        written: dict[str, Any] = json.loads(json.dumps(read, cls=JSONEncoder))
        # the SDK leaves a null id out
        return without_strays(written) | {"id": value["id"]}

    register_default_plugins()
    assert again(dashboard) == dashboard
    misspelt = copy.deepcopy(dashboard)
    misspelt["panels"][1]["options"]["graphmode"] = "area"
    assert again(misspelt) != misspelt


def test_every_metric_people_need_has_a_panel() -> None:
    """What a process shows and nobody sees helps nobody."""
    queries = " ".join(query for d in dashboards() for _, query in expressions(d))
    shown = {
        re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"homeostat_\w+", queries)
    }
    assert {metric.name for metric in METRICS} - shown == set()


def test_users_need_no_development_dependency() -> None:
    """Export and sync import neither the SDK nor the PromQL parser."""
    code = (
        "import sys, dashboards.__main__, dashboards.export, dashboards.grafana_sync;"
        "print([m for m in ('grafana_foundation_sdk', 'promql_parser') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_what_is_built_is_shipped() -> None:
    """Each kind of file in `provisioned/` is package data."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["dashboards"]
    shipped = {file for pattern in patterns for file in PROVISIONED.parent.glob(pattern)}
    assert shipped == set(PROVISIONED.iterdir())


def test_the_exported_tree_is_what_grafanas_file_provider_reads(tmp_path: Path) -> None:
    """Provider, data source, dashboards and rules; nothing editable, everything deletable."""
    (tmp_path / "dashboards").mkdir()
    for name in ("homeostat-old.json", "mine.json"):
        (tmp_path / "dashboards" / name).write_text("{}")
    files = export(tmp_path, prometheus_url="http://prometheus:9090", targets=("server:8100",))
    assert {str(file.relative_to(tmp_path)) for file in files} == {
        "provisioning/dashboards/homeostat.yaml",
        "provisioning/datasources/homeostat.yaml",
        "dashboards/homeostat-overview.json",
        "prometheus/homeostat.rules.yml",
        "prometheus/prometheus.yml",
    }
    provider = (tmp_path / "provisioning/dashboards/homeostat.yaml").read_text()
    assert f'path: "{tmp_path}/dashboards"' in provider
    assert "allowUiUpdates: false" in provider
    assert "disableDeletion: false" in provider
    datasource = (tmp_path / "provisioning/datasources/homeostat.yaml").read_text()
    assert 'url: "http://prometheus:9090"' in datasource
    assert "uid: homeostat-prometheus" in datasource
    assert '["server:8100"]' in (tmp_path / "prometheus/prometheus.yml").read_text()
    left = {file.name for file in (tmp_path / "dashboards").iterdir()}
    assert left == {"homeostat-overview.json", "mine.json"}


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(SettingsError):
        export(tmp_path, prometheus_url="prometheus:9090")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.daemon
def test_prometheus_takes_the_rules_and_the_scrape_configuration(tmp_path: Path) -> None:
    """promtool checks both, as exported."""
    export(tmp_path, prometheus_url="http://127.0.0.1:9090")
    checked = promtool("check", "config", tmp_path / "prometheus/prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules.ALERTS) + len(rules.recordings())} rules found" in checked.stdout


UNIT_TESTS = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'homeostat_requests_total{{model="shop",code="200"}}', values: '0+980x80'}}
      - {{series: 'homeostat_requests_total{{model="shop",code="500"}}', values: '0+20x80'}}
      - {{series: 'homeostat_requests_total{{model="calm",code="200"}}', values: '0+999x80'}}
      - {{series: 'homeostat_outbox_oldest_seconds{{model="shop"}}', values: '0+60x80'}}
      - {{series: 'homeostat_deliveries_total{{model="shop",outcome="dead"}}',
          values: '0x70 1x10'}}
      - {{series: 'homeostat_model_info{{model="shop",version="1"}}', values: '1x80'}}
      - {{series: 'up{{job="homeostat",instance="a"}}', values: '1x80'}}
      - {{series: 'homeostat_last_check_timestamp_seconds{{model="shop"}}', values: '60x80'}}
      - {{series: 'homeostat_last_check_timestamp_seconds{{model="new"}}', values: '0x80'}}
      - {{series: 'homeostat_error{{model="shop"}}', values: '0.3x80'}}
      - {{series: 'homeostat_error_baseline{{model="shop"}}', values: '0.1x80'}}
      - {{series: 'homeostat_window_labelled_rows{{model="shop"}}', values: '500x80'}}
    promql_expr_test:
      - expr: count by (alertname, model) (ALERTS{{alertstate="firing"}})
        eval_time: 75m
        exp_samples:
{expected}
"""


@pytest.mark.daemon
def test_the_alerts_that_should_fire_do_and_no_others(tmp_path: Path) -> None:
    """A model in trouble beside one that is well and one that has never been checked."""
    firing = (
        "HomeostatErrorBurnFast",
        "HomeostatErrorBurnSlow",
        "HomeostatOutboxStuck",
        "HomeostatAlertsLost",
        "HomeostatChecksNotRunning",
        "HomeostatErrorAboveBaseline",
    )
    expected = "\n".join(
        f'          - {{labels: \'{{alertname="{name}",model="shop"}}\', value: 1}}'
        for name in firing
    )
    file = tmp_path / "tests.yml"
    file.write_text(UNIT_TESTS.format(rules=PROVISIONED / "homeostat.rules.yml", expected=expected))
    tested = promtool("test", "rules", file)
    assert tested.returncode == 0, tested.stdout + tested.stderr
