"""The dashboard "Homeostat overview": one model, from the request to the release."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard as frame
from grafana_foundation_sdk.models import dashboard as model

from dashboards import loop_panels, serving_panels, tiles
from dashboards.panels import DATASOURCE
from dashboards.promql import HARM, of_model
from dashboards.provisioned_files import TAG

UID = "homeostat-overview"


def overview() -> Any:
    dashboard = (
        frame.Dashboard("Homeostat overview")
        .uid(UID)
        .description("One model: traffic, drift, retraining, releases, and the loop's own health.")
        .tags(["homeostat", TAG])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("30s")
        .with_variable(_datasource())
        .with_variable(_model())
    )
    for annotation in _annotations():
        dashboard.annotation(annotation)
    for title, panels in (
        ("Now", tiles.now()),
        ("Traffic and latency", serving_panels.traffic()),
        ("Processes and inputs", serving_panels.processes()),
        ("Batches and journal", serving_panels.journal()),
        ("Drift and data quality", loop_panels.drift()),
        ("Retraining and releases", loop_panels.releases()),
        ("Batch runs", loop_panels.batch_runs()),
        ("The loop's health", loop_panels.health()),
    ):
        dashboard.with_row(frame.Row(title))
        for panel in panels:
            dashboard.with_panel(panel)
    return dashboard


def _datasource() -> Any:
    return frame.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _model() -> Any:
    # a server without a loop, or a loop before its first server, still has a name here
    query = 'label_values({__name__=~"homeostat_(model_info|paused)"}, model)'
    return (
        frame.QueryVariable("model")
        .label("Model")
        .datasource(DATASOURCE)
        .query({"query": query, "refId": "model"})
        .definition(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def _annotations() -> list[Any]:
    changed = f"changes({of_model('homeostat_champion_version')}[2m]) > 0"
    harm = f"sum by (verdict) (increase({of_model('homeostat_checks_total', HARM)}[2m])) > 0"
    return [
        _annotation("Versions", "blue", changed, "Another version serves", "{{model}}"),
        _annotation("Harm", "red", harm, "A check found harm", "{{verdict}}"),
    ]


def _annotation(name: str, color: str, expr: str, title: str, text: str) -> Any:
    return (
        frame.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(color)
        .expr(expr)
        .step("60s")
        .title_format(title)
        .text_format(text)
    )
