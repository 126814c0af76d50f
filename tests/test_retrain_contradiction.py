"""Old rows that newer labels contradict are found, and few others."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from homeostat.records import Task
from retrain.contradiction import Labelled, contradicted, encode, onset

DIGITS, MEANINGS = load_digits(return_X_y=True)


def digits(seed: int) -> tuple[Labelled, Labelled, Labelled]:
    """800 old rows, 400 test rows, 400 newer ones."""
    order = np.random.default_rng(seed).permutation(len(DIGITS))[:1600]
    parts = np.split(order, [800, 1200])
    tables = [{str(i): DIGITS[part][:, i] for i in range(64)} for part in parts]
    encoded = encode(tables, tuple(str(i) for i in range(64)))
    labels = (MEANINGS[part].astype(str) for part in parts)
    old, test, newer = (Labelled(x=x, y=y) for x, y in zip(encoded, labels, strict=True))
    return old, test, newer


def renamed(labels: np.ndarray, names: dict[str, str]) -> np.ndarray:
    return np.array([names.get(label, label) for label in labels])


@pytest.mark.parametrize("names", [{"4": "9"}, {"3": "8", "8": "3"}])
@pytest.mark.parametrize("seed", [0, 1])
def test_digits_whose_meaning_changed_are_found(names: dict[str, str], seed: int) -> None:
    """Nearly all rows of the classes that were renamed, and hardly any other."""
    old, test, newer = digits(seed)
    newer = Labelled(x=newer.x, y=renamed(newer.y, names))
    for rows in (old, test):
        flags = contradicted(rows, newer, old, Task.CLASSIFICATION, np.random.default_rng(0))
        changed = np.isin(rows.y, list(names))
        assert flags[changed].mean() > 0.95
        assert flags[~changed].mean() < 0.02


def test_nothing_is_flagged_where_nothing_changed() -> None:
    """Under two of a hundred rows, by chance."""
    old, test, newer = digits(2)
    rng = np.random.default_rng(0)
    assert contradicted(test, newer, old, Task.CLASSIFICATION, rng).mean() < 0.02


def test_a_change_in_one_region_is_found_there() -> None:
    """The same class may keep its meaning elsewhere."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (6000, 2))
    y = np.where(x[:, 1] > 0, "high", "low")
    old, newer = Labelled(x=x[:4000], y=y[:4000]), Labelled(x=x[4000:], y=y[4000:].copy())
    newer.y[newer.x[:, 0] > 0.5] = "low"
    flags = contradicted(old, newer, old, Task.CLASSIFICATION, rng)
    changed = (old.x[:, 0] > 0.55) & (old.x[:, 1] > 0.05)
    assert flags[changed].mean() > 0.9
    assert flags[old.x[:, 0] < 0.4].mean() < 0.02


def test_numbers_that_moved_are_found() -> None:
    """Where the newer rows lie five sigma away from what they used to be."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (5000, 2))
    y = 3 * x[:, 0] + rng.normal(0, 0.2, 5000)
    old, newer = Labelled(x=x[:3000], y=y[:3000]), Labelled(x=x[3000:], y=y[3000:].copy())
    assert contradicted(old, newer, old, Task.REGRESSION, rng).mean() < 0.02
    newer.y[newer.x[:, 1] > 0] += 1.0
    flags = contradicted(old, newer, old, Task.REGRESSION, rng)
    assert flags[old.x[:, 1] > 0.1].mean() > 0.8
    assert flags[old.x[:, 1] < -0.1].mean() < 0.02


def test_newer_rows_from_elsewhere_say_nothing() -> None:
    """Inputs that moved away carry other labels without contradicting the old ones."""
    rng = np.random.default_rng(0)
    old = Labelled(x=rng.normal(0, 1, (1000, 2)), y=np.full(1000, "a"))
    old.y[old.x[:, 0] > 0] = "b"
    newer = Labelled(x=rng.normal(30, 1, (500, 2)), y=np.full(500, "c"))
    assert not contradicted(old, newer, old, Task.CLASSIFICATION, rng).any()


def test_the_onset_is_where_errors_rose() -> None:
    """Within a few rows; 0 where they did not rise."""
    rng = np.random.default_rng(0)
    errors = np.concatenate([rng.random(400) < 0.05, rng.random(200) < 0.4]).astype(float)
    assert abs(onset(errors) - 400) < 25
    assert onset((rng.random(600) < 0.1).astype(float)) == 0
    assert onset(errors[::-1].copy()) == 0
    assert onset(np.ones(10)) == 0


def test_columns_of_every_kind_become_one_scale() -> None:
    """Gaps are the mean, categories weigh as one sigma, a constant weighs nothing."""
    first = {"n": np.array([1.0, 3.0, np.nan]), "c": np.array(["a", "b", "a"], object)}
    second = {"n": np.array([5, 7]), "c": np.array(["b", "z"], object)}
    one, two = encode([first, second], ("n", "c"))
    assert one.shape == (3, 4)
    assert two.shape == (2, 4)
    assert one[2, 0] == 0.0
    assert np.linalg.norm(one[0, 1:] - one[1, 1:]) == pytest.approx(1.0)
    assert np.isfinite(np.vstack([one, two])).all()
