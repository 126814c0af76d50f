"""docs/settings.md and docs/metrics.md, from what the code declares.

python -m homeostat.reference_docs [--check] DOCS: write both, or fail where one is out of date.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from homeostat.metric import Metric
from homeostat.metrics import METRICS
from homeostat.settings import Settings
from homeostat.settings_reader import PREFIX, bare, doc, hints
from homeostat.words import Rate, Size, format_duration, format_size

NOTE = "<!-- Made by `python -m homeostat.reference_docs docs`; do not edit. -->"
WORDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    timedelta: "duration",
    Rate: "rate",
    Size: "size",
}

SETTINGS_INTRO = f"""\
# Settings

{NOTE}

A project is a folder with a file `homeostat.toml`. Every key that has a default may be left out. A
wrong key, type or value is an error that names the file, the key and what is allowed.

- Durations are words such as `"30s"`, `"5m"`, `"1h30m"` or `"7d"`; rates such as `"1 per 30d"`;
  sizes such as `"64MB"`. Paths are taken from the project's folder.
- The environment overrides the file: `{PREFIX}SERVING_PORT=9000` sets `port` in `[serving]`, and
  `{PREFIX}MODE` the key `mode`. Lists are written with commas. `[[alerts]]` and `[[score]]`
  have no such variables.
- Secrets never stand in the file: it names the variable or the file that holds one.
"""

METRICS_INTRO = f"""\
# Metrics

{NOTE}

The server shows the first group on `/metrics`, of all its workers together (and `process_*`,
those of prometheus_client), the loop the second. A histogram `x` is stored as `x_bucket`, `x_sum`
and `x_count`. `python -m dashboards export FOLDER` writes a Prometheus configuration, alert rules
and Grafana dashboards that use them.
"""


def settings_page() -> str:
    """Every key with its type, default and meaning."""
    lines = [SETTINGS_INTRO, "## At the top of the file", ""]
    sections = [(f, bare(hint)) for f, hint in _keys(Settings)]
    lines += _table([pair for pair in _keys(Settings) if not _section_of(bare(pair[1]))])
    for field, hint in sections:
        section = _section_of(hint)
        if section is None:
            continue
        name = f"[[{field.name}]]" if get_origin(hint) is tuple else f"[{field.name}]"
        lines += ["", f"## {name}", "", inspect.getdoc(section) or "", ""]
        lines += _table(list(_keys(section)))
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """Every metric with its labels, by the process that shows it."""
    lines = [METRICS_INTRO.rstrip("\n")]
    for owner in ("server", "loop"):
        lines += ["", f"## The {owner}'s", "", "| metric | kind | labels | meaning |"]
        lines += ["| --- | --- | --- | --- |"]
        lines += [_metric(metric) for metric in METRICS if metric.owner == owner]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    return {"settings.md": settings_page(), "metrics.md": metrics_page()}


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    [folder] = [Path(argument) for argument in arguments if argument != "--check"]
    stale = [
        name
        for name, text in pages().items()
        if not (folder / name).exists() or (folder / name).read_text() != text
    ]
    for name in stale:
        if check:
            sys.stderr.write(f"{folder / name} is out of date\n")
        else:
            (folder / name).write_text(pages()[name])
    return int(check and bool(stale))


def _keys(type_: type) -> Iterator[tuple[Field[Any], Any]]:
    known = hints(type_)
    for field in fields(type_):
        if not (type_ is Settings and field.name == "project"):
            yield field, known[field.name]


def _section_of(hint: Any) -> type | None:
    inner = get_args(hint)[0] if get_origin(hint) is tuple else hint
    return inner if is_dataclass(inner) and inner is not Rate else None  # type: ignore[return-value]


def _table(keys: list[tuple[Field[Any], Any]]) -> list[str]:
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field, hint in keys:
        cells = (f"`{field.name}`", _kind(bare(hint)), _default(field), doc(hint))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _kind(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return _kind(next(h for h in get_args(hint) if h is not type(None)))
    if get_origin(hint) is tuple:
        return f"list of {_kind(get_args(hint)[0])}"
    if get_origin(hint) is Literal:
        return ", ".join(f'`"{value}"`' for value in get_args(hint))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return ", ".join(f'`"{value}"`' for value in hint)
    return WORDS[hint]


def _default(field: Field[Any]) -> str:
    value = field.default
    if value is MISSING:
        return "required"
    if value is None:
        return ""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, timedelta):
        text = f'"{format_duration(value)}"'
    elif isinstance(value, Size):
        text = f'"{format_size(value)}"'
    elif isinstance(value, int | float):
        text = str(value)
    elif isinstance(value, tuple):
        text = str(list(value))
    else:
        text = f'"{value}"'
    return f"`{text}`"


def _metric(metric: Metric) -> str:
    labels = ", ".join(
        f"`{label}`"
        + (f" ({', '.join(metric.values)})" if metric.values and label == metric.labels[-1] else "")
        for label in metric.labels
    )
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
