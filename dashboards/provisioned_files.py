"""The files that are shipped with the package: dashboards and rules, built before the release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PROVISIONED = Path(__file__).parent / "provisioned"
RULES = "homeostat.rules.yml"
TAG = "homeostat-managed"  # what `sync` knows our dashboards by


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(PROVISIONED.glob("*.json"))]


def rules() -> str:
    return (PROVISIONED / RULES).read_text()
