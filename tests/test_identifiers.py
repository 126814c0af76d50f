"""Ids sort by time, and labels have one text."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.identifiers import Identifiers, milliseconds_of, uuid7, uuid7_batch
from homeostat.labels import canonical

NANOSECONDS = st.integers(0, 2**48 * 10**6 - 1)  # until the year 10889
IDS = Identifiers()
NOISE = st.binary(min_size=8, max_size=8)


@given(NANOSECONDS, NOISE)
def test_an_id_is_a_uuid_of_version_7_that_holds_its_time(now_ns: int, noise: bytes) -> None:
    """As RFC 9562 says."""
    text = uuid7(now_ns, noise)
    value = uuid.UUID(text)
    assert str(value) == text
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert milliseconds_of(text) == now_ns // 10**6


@given(NANOSECONDS, NANOSECONDS, NOISE, NOISE)
def test_ids_sort_by_time(first: int, second: int, one: bytes, other: bytes) -> None:
    """Down to a quarter of a microsecond, whatever the noise says."""
    if abs(first - second) >= 250:
        assert (uuid7(first, one) < uuid7(second, other)) == (first < second)


def test_ids_made_one_after_the_other_are_in_order() -> None:
    """So that the events of one transaction stay in theirs."""
    made = [uuid7() for _ in range(200)]
    assert len(set(made)) == 200
    assert sum(one > other for one, other in pairwise(made)) <= 2  # the clock's own steps


@pytest.mark.parametrize("make", [uuid7_batch, Identifiers().make])
@pytest.mark.parametrize("count", [1, 2, 23, 24, 1000, 4095, 5000])
def test_a_batch_of_ids_is_of_one_moment(make: Callable[[int], list[str]], count: int) -> None:
    """Well formed and all different, however many they are."""
    made = make(count)
    assert len(set(made)) == count
    assert {uuid.UUID(text).version for text in made} == {7}
    assert {uuid.UUID(text).variant for text in made} == {uuid.RFC_4122}
    assert all(str(uuid.UUID(text)) == text for text in made)
    assert len({milliseconds_of(text) for text in made}) == 1
    assert make(0) == []


def test_no_random_part_is_given_twice() -> None:
    """Over many batches of uneven sizes."""
    made = [each for count in range(1, 200) for each in IDS.make(count)]
    assert len({each[15:] for each in made}) == len(made)


@pytest.mark.parametrize("make", [uuid7_batch, IDS.make])
def test_all_the_noise_of_a_large_batch_is_in_its_ids(make: Callable[[int], list[str]]) -> None:
    """Every digit that is free takes every value."""
    made = make(2000)
    free = [place for place in range(15, 36) if place not in (18, 19, 23)]
    assert all(len({text[place] for text in made}) == 16 for place in free)
    assert {text[19] for text in made} == set("89ab")


def test_a_callers_own_id_has_no_time_for_us() -> None:
    """Neither text nor another kind of UUID."""
    for text in ("order-17", "", str(uuid.uuid4())):
        assert milliseconds_of(text) is None


@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_a_whole_number_is_one_label_in_every_type(number: int) -> None:
    """Python's, numpy's, as text, and as a float that came back from a table."""
    texts = {canonical(number), canonical(float(number)), canonical(np.int64(number))}
    assert texts | {canonical(np.float64(number)), canonical(str(number))} == {str(number)}


@given(st.one_of(st.text(), st.booleans(), st.integers(), st.floats(allow_nan=False)))
def test_a_canonical_label_stays_what_it_is(value: object) -> None:
    """Once canonical, always canonical."""
    if isinstance(value, float) and math.isinf(value):
        return
    assert canonical(canonical(value)) == canonical(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_can_be_read_back(value: float) -> None:
    """Nothing of a regression's label is lost."""
    assert float(canonical(value)) == value


def test_labels_of_other_kinds() -> None:
    """Booleans have their words; what is no label is refused."""
    assert (canonical(True), canonical(np.bool_(False))) == ("true", "false")
    assert (canonical(0.5), canonical(-0.0)) == ("0.5", "0")
    wrong: tuple[object, ...] = (None, math.nan, math.inf, np.float32("nan"), [], {"a": 1}, b"a")
    for nothing in wrong:
        with pytest.raises(ValueError, match=re.compile("label")):
            canonical(nothing)
