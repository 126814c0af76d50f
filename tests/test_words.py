"""Durations, rates and sizes in words, there and back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.words import (
    Rate,
    Size,
    format_duration,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)

DURATIONS = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=10**6))
# a rate's period below a millisecond would be no period
PERIODS = st.integers(1, 10**7).map(lambda seconds: timedelta(seconds=seconds))


@given(DURATIONS)
def test_a_duration_in_words_is_the_same_duration(duration: timedelta) -> None:
    """To the microsecond, from nothing to thousands of years."""
    assert parse_duration(format_duration(duration)) == duration


@given(st.integers(1, 10**6), PERIODS)
def test_a_rate_in_words_is_the_same_rate(count: int, per: timedelta) -> None:
    """`str` is what the settings take."""
    rate = Rate(float(count), per)
    assert parse_rate(f"{count} per {format_duration(per)}") == rate


@given(st.integers(0, 10**15))
def test_a_size_in_words_is_the_same_size(size: int) -> None:
    """To the byte."""
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("2w", 14 * 86400),
        (" 7D ", 7 * 86400),
        ("0s", 0),
    ],
)
def test_durations_people_write(text: str, seconds: float) -> None:
    """Together, apart, with fractions, in capitals."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "5", "m", "5 minutes", "-5m", "5m!", "1e3s", "9" * 30 + "d"]
)
def test_what_is_no_duration(text: str) -> None:
    """The error shows what one looks like and what was given."""
    with pytest.raises(ValueError, match="a duration") as raised:
        parse_duration(text)
    assert f'"{text}"' in str(raised.value)


def test_rates_people_write() -> None:
    """With a number of days, or just a day; what is no rate is told."""
    assert parse_rate("1 per 30d") == Rate(1, timedelta(days=30))
    assert parse_rate("2 per d") == Rate(2, timedelta(days=1))
    assert parse_rate("0.5 per 1h30m") == Rate(0.5, timedelta(minutes=90))
    assert str(parse_rate("4 per 7d")) == "4 per 7d"
    for text in ("", "5", "per d", "x per d", "1 per", "0 per d", "-1 per d", "nan per d"):
        with pytest.raises(ValueError, match="a rate"):
            parse_rate(text)
    for text in ("inf per d", "1 per 0s"):
        with pytest.raises(ValueError, match="a rate"):
            parse_rate(text)


@given(PERIODS, PERIODS)
def test_a_rate_shares_its_budget_among_the_trials(per: timedelta, every: timedelta) -> None:
    """Trials times chance is the rate, and a chance is never above one."""
    chance = Rate(1, per).probability(every)
    assert 0 < chance <= 1
    if every < per:
        assert chance * (per / every) == pytest.approx(1)


def test_sizes_people_write() -> None:
    """With and without space or fraction; what is no size is told."""
    assert parse_size("64MB") == 64_000_000
    assert parse_size("1.5 gb") == 1_500_000_000
    assert parse_size("0b") == 0
    assert isinstance(parse_size("1kb"), Size)
    assert (format_size(8_000_000), format_size(1_500), format_size(0)) == ("8MB", "1500B", "0GB")
    for text in ("", "64", "MB", "-1MB", "64MiB", "1e3b"):
        with pytest.raises(ValueError, match="a size"):
            parse_size(text)
