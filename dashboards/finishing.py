"""What Grafana's SDK leaves open in a dashboard, filled in: ids, refIds, the schema, stray keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

SCHEMA = 42  # the classic form, which Grafana 11 to 13 take
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def finished(builder: Any) -> dict[str, Any]:
    """The dashboard as JSON, the same for the same code, whoever builds it."""
    dashboard: dict[str, Any] = json.loads(json.dumps(builder.build(), cls=JSONEncoder))
    dashboard["schemaVersion"] = SCHEMA
    dashboard["id"] = None
    dashboard["version"] = 1
    dashboard.setdefault("timezone", "")
    for number, panel in enumerate(dashboard["panels"], start=1):
        panel["id"] = number
        for letter, target in zip(LETTERS, panel.get("targets", ()), strict=False):
            target["refId"] = letter
    return without_strays(dashboard)


def without_strays(dashboard: dict[str, Any]) -> dict[str, Any]:
    """Less the `auto…` keys that the SDK gives every variable; only intervals have them."""
    for variable in dashboard["templating"]["list"]:
        for key in [key for key in variable if key.startswith("auto")]:
            del variable[key]
    return dashboard


def as_text(dashboard: dict[str, Any]) -> str:
    return json.dumps(dashboard, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def expressions(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Where a query stands, and the query: of panels and annotations."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield f'panel "{panel["title"]}" {target.get("refId")}', target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield f'annotation "{annotation["name"]}"', annotation["expr"]
