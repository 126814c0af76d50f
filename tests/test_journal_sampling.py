"""A sample is chosen by ids alone: thinning it gives what a lower rate would have logged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_kit import column_rows, open_writer, tensor_rows

from homeostat.identifiers import uuid7_batch
from homeostat.journal.encoding.recording import Recording
from homeostat.journal.encoding.sampling import shares, shares_of

ids = st.lists(st.text(max_size=40), max_size=30)
rates = st.floats(0.01, 1.0)


def logged(folder: Path, table: str = "predictions") -> dict[str, float]:
    """The weight of each id in the table, read without our reader."""
    rows = DeltaTable(folder / "journal" / "digits" / table).to_pyarrow_table()
    return dict(zip(rows["prediction_id"].to_pylist(), rows["weight"].to_pylist(), strict=True))


def test_hash_is_fixed_for_ever() -> None:
    """Tables outlive programs: these numbers may never change."""
    found = shares(["a", "row-17", "01a1fe12-7585-7e05-8f38-5fde012017e1", "", "Köln"])
    assert found.tolist() == pytest.approx(
        [
            0.3695695305016533,
            0.04626185313441611,
            0.8926667223598079,
            0.6118225421857174,
            0.2768607503836674,
        ],
        abs=1e-15,
    )


@given(names=ids)
def test_share_of_an_id_depends_on_nothing_else(names: list[str]) -> None:
    """Not on the other ids of a batch, nor on whether Arrow or Python holds them."""
    together = shares(names)
    assert together.tolist() == [shares([name])[0] for name in names]
    assert all(0 <= share < 1 for share in together)
    column = pa.array(names, pa.string())
    assert shares_of(column).tolist() == together.tolist()
    assert shares_of(column[1:]).tolist() == together.tolist()[1:]


@given(names=ids, first=rates, second=rates)
def test_thinned_sample_is_what_a_lower_rate_would_have_logged(
    names: list[str], first: float, second: float
) -> None:
    """To thin a sample to a lower rate by the same hash leaves nothing out and adds nothing."""
    lower, higher = sorted([first, second])
    sample = [name for name in names if shares([name])[0] < higher]
    thinned = [name for name in sample if shares([name])[0] < lower]
    assert thinned == [name for name in names if shares([name])[0] < lower]


@pytest.mark.parametrize(
    "names",
    [
        [f"row-{number}" for number in range(40_000)],
        [str(number) for number in range(40_000)],
        uuid7_batch(40_000),
        [f"{number:036d}" for number in range(40_000)],
    ],
    ids=["rows", "numbers", "uuid7", "padded"],
)
def test_shares_are_spread_evenly(names: list[str]) -> None:
    """Ids that people and programs make are sampled at the rate that was set."""
    found = np.sort(shares(names))
    even = np.linspace(0, 1, len(found))
    # the distance a uniform sample of this size exceeds once in ten billion times
    assert np.abs(found - even).max() < 0.0172


@settings(max_examples=15, deadline=None)
@given(rate=st.floats(0.05, 1.0), numbers=st.lists(st.integers(0, 10**6), min_size=1, max_size=60))
def test_rows_below_the_rate_are_logged_with_their_weight(
    tmp_path_factory: pytest.TempPathFactory, rate: float, numbers: list[int]
) -> None:
    """Whole rows: each value stays with its id, and weighs as much as the sample says."""
    folder = tmp_path_factory.mktemp("sampled")
    names = [f"id-{number}" for number in dict.fromkeys(numbers)]
    values = [float(name.removeprefix("id-")) for name in names]
    chosen = [name for name in names if shares([name])[0] < rate]
    writer = open_writer(folder, recording=Recording(sample=rate))
    writer.append(
        tensor_rows(
            names,
            matrix=np.array([values] * 3, np.float32).T,
            predictions=[str(value) for value in values],
            keys=[f"key of {name}" for name in names],
        )
    )
    writer.append(column_rows(names, {"x": values}))
    writer.close()
    assert writer.level().sampled_out == 2 * (len(names) - len(chosen))
    if chosen:
        rows = DeltaTable(folder / "journal/digits/predictions").to_pyarrow_table()
        assert sorted(rows["prediction_id"].to_pylist()) == sorted(chosen * 2)
        assert set(rows["weight"].to_pylist()) == {1 / rate}
        for row in rows.to_pylist():
            value = float(row["prediction_id"].removeprefix("id-"))
            if row["input"] is None:
                assert row["input_x"] == value
            else:
                assert row["input"] == [np.float32(value)] * 3
                assert row["prediction"] == str(value)
                assert row["key"] == f"key of {row['prediction_id']}"


def test_same_id_gets_the_same_decision_after_a_restart(tmp_path: Path) -> None:
    """A request that is sent again to another process is logged again, or again not."""
    names = [f"row-{number}" for number in range(200)]
    for folder in (tmp_path / "first", tmp_path / "second"):
        writer = open_writer(folder, recording=Recording(sample=0.5))
        for start in range(0, 200, 7):
            writer.append(tensor_rows(names[start : start + 7]))
        writer.close()
    first, second = logged(tmp_path / "first"), logged(tmp_path / "second")
    assert first == second
    assert set(first.values()) == {2.0}
    assert 60 < len(first) < 140


@pytest.mark.parametrize("rate", [0.0, -1.0, 1.5, float("nan")])
def test_rate_that_is_none_is_refused(rate: float) -> None:
    """A sample is a share."""
    with pytest.raises(ValueError, match="sample is a share"):
        Recording(sample=rate)
