"""What must hold of everything that is shipped, so that no panel is empty because of a typo."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import promql_parser

from dashboards.finishing import expressions
from dashboards.rules import ALERTS, recordings
from homeostat.metrics import METRICS

METRIC = re.compile(r"(?<![\w:])(homeostat_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
ALWAYS_THERE = frozenset({"job", "instance"})
# Grafana's variables, as it would fill them in.
VARIABLE = re.compile(r"\$(\w+)")
VARIABLES = {"model": "shop", "__rate_interval": "1m", "__range": "6h", "__interval": "30s"}


def filled(expression: str, values: Mapping[str, str] = VARIABLES) -> str:
    """As Grafana would send it; variables that it does not know stay."""
    return VARIABLE.sub(lambda match: values.get(match[1], match[0]), expression)


def problems_of(dashboard: Mapping[str, Any]) -> list[str]:
    """Of one dashboard, in words; empty when there are none."""
    name = dashboard.get("uid") or "a dashboard without uid"
    found = itertools.chain(
        _frame(dashboard),
        _panels(dashboard["panels"]),
        _overlaps(dashboard["panels"]),
        (
            f"{place}: {problem}"
            for place, expression in expressions(dict(dashboard))
            for problem in problems_of_promql(expression)
        ),
        (f"data source {ref!r}, not ${{datasource}}" for ref in _other_sources(dashboard)),
    )
    return [f"{name}: {problem}" for problem in found]


def problems_of_rules() -> list[str]:
    texts = [(alert.name, alert.expr) for alert in ALERTS]
    texts += [(recording.record, recording.expr) for recording in recordings()]
    found = [f"{n}: {problem}" for n, expr in texts for problem in problems_of_promql(expr)]
    found += [f"{name}: twice" for name, count in Counter(n for n, _ in texts).items() if count > 1]
    for alert in ALERTS:
        if not alert.summary or not alert.runbook:
            found.append(f"{alert.name}: no summary or no runbook")
    return found


def problems_of_promql(expression: str) -> Iterator[str]:
    """Whether it can be parsed, and names metrics and labels that exist."""
    text = filled(expression)
    try:
        promql_parser.parse(text)
    except ValueError as error:
        yield f"not PromQL ({error}): {text}"
    if VARIABLE.search(text):
        yield f"a variable that no dashboard has: {text}"
    known = _series()
    for name, matchers in METRIC.findall(text):
        if name not in known:
            yield f"no metric is called {name}"
            continue
        for label in LABEL.findall(matchers):
            if label not in known[name] | ALWAYS_THERE:
                yield f"{name} has no label {label}"


def _series() -> dict[str, frozenset[str]]:
    """The names Prometheus stores the declared metrics under, and their labels."""
    series = {}
    for metric in METRICS:
        labels = frozenset(metric.labels)
        if metric.kind == "histogram":
            series[f"{metric.name}_bucket"] = labels | {"le"}
            series[f"{metric.name}_sum"] = series[f"{metric.name}_count"] = labels
        else:
            series[metric.name] = labels
    return series


def _frame(dashboard: Mapping[str, Any]) -> Iterator[str]:
    if not dashboard.get("uid"):
        yield "no uid"
    if dashboard.get("id") is not None:
        yield "an id, which belongs to one Grafana"
    if dashboard.get("editable"):
        yield "editable, though the next build would overwrite the edits"
    if not dashboard.get("description"):
        yield "no description"
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query" and not variable.get("refresh"):
            yield f"variable {variable['name']} is never refreshed"
        if strays := [key for key in variable if key.startswith("auto")]:
            yield f"variable {variable['name']} has {', '.join(strays)}"


def _panels(panels: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    panels = list(panels)
    for number, count in Counter(panel.get("id") for panel in panels).items():
        if count > 1 or not number:
            yield f"panel id {number}: {count} times"
    for panel in panels:
        if panel["type"] == "row":
            continue
        place = f'panel "{panel.get("title", "")}"'
        if not panel.get("title") or not panel.get("description"):
            yield f"{place}: no title or no description"
        if not panel["fieldConfig"]["defaults"].get("unit"):
            yield f"{place}: no unit"
        references = [target.get("refId") for target in panel.get("targets", ())]
        if not references or not all(references) or len(set(references)) < len(references):
            yield f"{place}: refIds {references}"
    titles = Counter(panel["title"] for panel in panels if panel["type"] != "row")
    yield from (f'panel "{title}": {count} of them' for title, count in titles.items() if count > 1)


def _overlaps(panels: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for one, other in itertools.combinations(panels, 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        if not beside and not above:
            yield f'panels "{one["title"]}" and "{other["title"]}" overlap'
    for panel in panels:
        if panel["gridPos"]["x"] + panel["gridPos"]["w"] > 24:
            yield f'panel "{panel["title"]}" reaches beyond the grid'


def _other_sources(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        source = value.get("datasource")
        if isinstance(source, dict) and source.get("uid") != "${datasource}":
            yield str(source.get("uid"))
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _other_sources(item)
