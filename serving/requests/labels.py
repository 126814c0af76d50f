"""A body of labels -> Label records, or an error that names the entry and the field."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from homeostat.errors import InputError
from homeostat.labels import LABEL, LONGEST, checked
from homeostat.records import Label, Task
from serving.requests.parsing import MAX_ID, parse
from serving.requests.problem import TooLarge
from serving.requests.rows import shown

MOST_LABELS = 100_000  # in one request
EXAMPLE = '{"labels": [{"id": …, "value": …}]}'
MEMBERS = frozenset({"id", "value", "name", "source", "time"})


def read_labels(body: bytes, task: Task, now: datetime) -> list[Label]:
    """Raises InputError (its row is the entry's place), Unreadable for what is not JSON, TooLarge
    for too many at once."""
    document, malformed = parse(body, EXAMPLE)
    if not isinstance(document, dict) or not isinstance(document.get("labels"), list):
        raise InputError(f"the body must be an object such as {EXAMPLE}", field="labels")
    for key in document:
        if key != "labels":
            raise InputError(f'unknown member {shown(key)}; there is "labels"', field=key)
    entries = document["labels"]
    if not entries:
        raise InputError('"labels" is empty', field="labels")
    if len(entries) > MOST_LABELS:
        raise TooLarge(
            f"{len(entries)} labels in one request; at most {MOST_LABELS}: send them in parts, or "
            "import a file with `homeostat labels import`"
        )
    labels = [_label(index, entry, task, now) for index, entry in enumerate(entries)]
    if malformed:
        raise malformed
    return labels


def _label(index: int, entry: Any, task: Task, now: datetime) -> Label:
    if not isinstance(entry, dict):
        raise InputError(f"label {index} must be an object, not {shown(entry)}", row=index)
    for key in entry:
        if key not in MEMBERS:
            raise InputError(
                f"label {index}: unknown member {shown(key)}; "
                f"there are {', '.join(sorted(MEMBERS))}",
                row=index,
                field=key,
            )
    name = _text(index, entry, "name", default=LABEL, least=1)
    return Label(
        prediction_id=_text(index, entry, "id", longest=MAX_ID, least=1),
        value=_value(index, entry, name, task),
        name=name,
        source=_text(index, entry, "source", default=""),
        time=_time(index, entry, now),
    )


def _text(
    index: int,
    entry: Mapping[str, Any],
    field: str,
    *,
    default: str | None = None,
    least: int = 0,
    longest: int = LONGEST,
) -> str:
    value = entry.get(field, default)
    if not isinstance(value, str) or not least <= len(value) <= longest:
        what = "is missing" if field not in entry else f"is {shown(value)}"
        raise InputError(
            f'label {index}: "{field}" {what}; a string of {least} to {longest} characters is '
            "needed",
            row=index,
            field=field,
        )
    return value


def _value(index: int, entry: Mapping[str, Any], name: str, task: Task) -> str:
    try:
        return checked(entry.get("value"), name, task)
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"label {index}: {shown(entry.get('value'))} cannot be a label: {error}",
            row=index,
            field="value",
        ) from None


def _time(index: int, entry: Mapping[str, Any], now: datetime) -> datetime:
    value = entry.get("time")
    if value is None:
        return now
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(
        f'label {index}: "time" is {shown(value)}; an ISO 8601 time with its zone is needed, '
        'such as "2026-01-31T12:00:00Z"',
        row=index,
        field="time",
    )
