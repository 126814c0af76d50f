"""The house's style of panels, on Grafana's SDK. Imported only to build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as frame
from grafana_foundation_sdk.builders import statetimeline as timeline
from grafana_foundation_sdk.models import common as choices
from grafana_foundation_sdk.models import dashboard as model

DATASOURCE = choices.DataSourceRef(type_val="prometheus", uid="${datasource}")
NEUTRAL, GOOD, WARN, BAD = "text", "green", "orange", "red"
SLOW_COLORS = {"p50": "green", "p95": "orange", "p99": "red"}
TILE, CHART = (4, 4), (8, 8)  # columns (of 24) and height


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str = ""


def tile(
    title: str,
    description: str,
    expr: str,
    unit: str,
    *,
    limits: Mapping[float, str] | None = None,
    words: Mapping[str, str] | None = None,
    empty: str = "No data",
    decimals: int | None = None,
    spark: bool = False,
) -> Any:
    """One number. Only tiles that judge are coloured.

    It is asked for as of now: the last point of a range would show what is long over. Only an
    expression that always has a value may have a spark line.
    """
    panel = _described(stat.Panel(), title, description, unit, TILE)
    panel.with_target(_target(Query(expr), instant=not spark))
    panel.no_value(empty)
    panel.graph_mode(choices.BigValueGraphMode.AREA if spark else choices.BigValueGraphMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.thresholds(_limits(limits, GOOD if limits else NEUTRAL))
    panel.color_scheme(frame.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    if words:
        panel.mappings([_words(words)])
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def chart(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    size: tuple[int, int] = CHART,
    lowest: float | None = 0,
    highest: float | None = None,
    limit: float | None = None,
    stacked: bool = False,
    colors: Mapping[str, str] | None = None,
) -> Any:
    """Lines over time; `limit` is drawn as a dashed line."""
    panel = _described(timeseries.Panel(), title, description, unit, size)
    for query in queries:
        panel.with_target(_target(query))
    panel.line_width(2).fill_opacity(60 if stacked else 8)
    panel.show_points(choices.VisibilityMode.NEVER)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(choices.LegendDisplayMode.LIST)
        .placement(choices.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel.tooltip(
        common.VizTooltipOptions()
        .mode(choices.TooltipDisplayMode.MULTI)
        .sort(choices.SortOrder.DESCENDING)
    )
    if lowest is not None:
        panel.min(lowest)
    if highest is not None:
        panel.max(highest)
    if stacked:
        panel.stacking(common.StackingConfig().mode(choices.StackingMode.NORMAL))
    if limit is not None:
        panel.thresholds(_limits({limit: BAD}, GOOD))
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(choices.GraphThresholdsStyleMode.DASHED)
        )
    for name, color in (colors or {}).items():
        panel.override_by_name(name, [_fixed(color)])
    return panel


def bars(
    title: str, description: str, unit: str, query: Query, *, size: tuple[int, int] = CHART
) -> Any:
    """One bar a series, as of now."""
    panel = _described(bargauge.Panel(), title, description, unit, size)
    panel.with_target(_target(query, instant=True))
    panel.orientation(choices.VizOrientation.HORIZONTAL)
    panel.display_mode(choices.BarGaugeDisplayMode.BASIC)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.thresholds(_limits(None, "blue"))
    panel.min(0)
    return panel


def states(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    size: tuple[int, int] = CHART,
    words: Mapping[str, str] | None = None,
) -> Any:
    """What was when: a coloured band a series."""
    panel = _described(timeline.Panel(), title, description, unit, size)
    for query in queries:
        panel.with_target(_target(query))
    panel.merge_values(True).show_value(choices.VisibilityMode.AUTO)
    panel.color_scheme(frame.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
    if words:
        panel.mappings([_words(words)])
        panel.thresholds(_limits({1: WARN}, GOOD))
        panel.color_scheme(frame.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    return panel


def _described(panel: Any, title: str, description: str, unit: str, size: tuple[int, int]) -> Any:
    panel.title(title).description(description).unit(unit)
    return panel.datasource(DATASOURCE).span(size[0]).height(size[1])


def _target(query: Query, *, instant: bool = False) -> Any:
    target = prometheus.Dataquery().expr(query.expr).datasource(DATASOURCE)
    target.legend_format(query.legend or "__auto")
    return target.instant() if instant else target.range()


def _limits(limits: Mapping[float, str] | None, base: str) -> Any:
    steps = [model.Threshold(value=None, color=base)]
    steps += [model.Threshold(value=value, color=color) for value, color in (limits or {}).items()]
    return frame.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _words(words: Mapping[str, str]) -> Any:
    results = {
        value: model.ValueMappingResult(text=text, index=index)
        for index, (value, text) in enumerate(words.items())
    }
    return model.ValueMap(options=results)


def _fixed(color: str) -> Any:
    return model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})
