"""Values that commands take, as callbacks of their options."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from homeostat.words import parse_duration
from loop.clock import utc_now


def duration(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> timedelta | None:
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def moment(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> datetime | None:
    """A time, in UTC where it has no zone; or how long ago. None where it is not given."""
    if value is None:
        return None
    try:
        return utc_now() - parse_duration(value)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f'a time such as 2026-11-20T12:00Z, or how long ago such as 2h, not "{value}"'
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
