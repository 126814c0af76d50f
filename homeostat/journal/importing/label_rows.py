"""One row of a file -> a label, or a sentence that says what is wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from homeostat.errors import InputError
from homeostat.identifiers import LONGEST_ID
from homeostat.labels import LABEL, LONGEST, canonical, checked
from homeostat.records import Label, Task

_WHOLE = re.compile(r"-?\d+\.0+")  # as a spreadsheet or pandas writes a class that is a number


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which columns hold what. An optional column that the file lacks is as if it were empty."""

    id: str = "id"
    value: str = "value"
    name: str = "name"
    source: str = "source"
    time: str = "time"
    all_names: str | None = None  # every label's name, instead of a column
    all_sources: str | None = None
    utc: bool = False  # times without a zone are UTC; else they are refused
    typed: bool = True  # the file tells numbers from text; CSV does not

    def wanted(self, there: Sequence[str] | None) -> list[str]:
        """The columns to read; raises InputError where one that must be there is not."""
        if there is None:
            return []
        for column, option in ((self.id, "--id-column"), (self.value, "--value-column")):
            if column not in there:
                raise InputError(
                    f'there is no column "{column}"; there are {", ".join(there)}; '
                    f"name the right one with {option}"
                )
        every = (self.id, self.value, self.name, self.source, self.time)
        return [column for column in dict.fromkeys(every) if column in there]


def label_of(values: Mapping[str, Any], layout: Layout, task: Task, now: datetime) -> Label:
    """Raises ValueError with what is wrong."""
    name = layout.all_names or _text(values, layout.name, LABEL, LONGEST)
    source = layout.all_sources
    if source is None:
        source = _text(values, layout.source, "", LONGEST)
    return Label(
        prediction_id=_id(values, layout),
        value=_value(values.get(layout.value), name, layout, task),
        name=name,
        source=source,
        time=_time(values.get(layout.time), layout, now),
    )


def _value(value: Any, name: str, layout: Layout, task: Task) -> str:
    if isinstance(value, str) and not layout.typed:
        value = _untyped(value)
    try:
        return _encodable(checked(value, name, task))
    except OverflowError as problem:
        raise ValueError(f"{value!r:.60} cannot be a label: {problem}") from None


def _untyped(value: str) -> str | None:
    """The text that the same value has where types are known."""
    if _WHOLE.fullmatch(value):
        return value.partition(".")[0]
    if value in ("True", "False"):
        return value.lower()
    return value or None


def _id(values: Mapping[str, Any], layout: Layout) -> str:
    """Ids may be numbers, where callers number their predictions. A column of them with gaps is
    written as 12345.0 by pandas, and by spreadsheets."""
    text = _text(values, layout.id, "", LONGEST_ID)
    if not text:
        raise ValueError(f'"{layout.id}" is empty')
    whole = not layout.typed and _WHOLE.fullmatch(text)
    return text.partition(".")[0] if whole else text


def _text(values: Mapping[str, Any], column: str, default: str, longest: int) -> str:
    value = values.get(column)
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return default
    value = _named(value, column)
    if len(value) > longest:
        raise ValueError(f'"{column}" has {len(value)} characters; at most {longest} are kept')
    return _encodable(value)


def _named(value: Any, column: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and abs(value) >= 2**53:
        raise ValueError(
            f'"{column}" is {value!r}: so large a number lost digits; write it as text'
        )
    if isinstance(value, bool | int | float):
        return canonical(value)
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return str(int(value))
    return str(value)


def _encodable(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("is not UTF-8; save the file as UTF-8") from None
    return text


def _time(value: Any, layout: Layout, now: datetime) -> datetime:
    if value is None or value == "":
        return now
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        if time.tzinfo is None and layout.utc:
            time = time.replace(tzinfo=UTC)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(
        f'"{layout.time}" is {str(value)!r:.60}; an ISO 8601 time with its zone is needed, such as '
        "2026-01-31T12:00:00Z (--utc takes times without a zone as UTC)"
    )
