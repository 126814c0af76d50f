"""What the camera sees and what the labels say: handwritten digits, and how their world moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Images = NDArray[np.float64]  # (rows, 8, 8), from 0 to 16

TRAIN, TEST = 700, 500  # the rest is what production draws from
SWAPPED = {1: 7, 7: 1}
BUGGY_PIXEL = (3, 4)


@dataclass(frozen=True, kw_only=True)
class World:
    """How things are now. Acts replace one world by the next."""

    aged: bool = False  # the camera: blurred, low in contrast, out of place
    relabelled: bool = False  # what was called 1 is called 7 now, and the other way round
    unit_bug: bool = False  # one pixel arrives a hundred times too large


@dataclass(frozen=True)
class Digits:
    """scikit-learn's handwritten digits, split once."""

    train: tuple[Images, NDArray[np.int64]]
    test: tuple[Images, NDArray[np.int64]]
    production: tuple[Images, NDArray[np.int64]]


def load_digits(seed: int) -> Digits:
    from sklearn.datasets import load_digits as load

    found = load()
    order = np.random.default_rng(seed).permutation(len(found.images))
    images, digits = found.images[order], found.target[order].astype(np.int64)
    ends = (slice(0, TRAIN), slice(TRAIN, TRAIN + TEST), slice(TRAIN + TEST, None))
    return Digits(*((images[part], digits[part]) for part in ends))


def frame(part: tuple[Images, NDArray[np.int64]]) -> pd.DataFrame:
    """As a training program reads it: a column a pixel, and the digit."""
    import pandas as pd

    images, digits = part
    names = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
    return pd.DataFrame(images.reshape(-1, 64), columns=names).assign(digit=digits)


def draw(
    digits: Digits, world: World, count: int, rng: np.random.Generator
) -> tuple[Images, list[int]]:
    """Rows as production sends them now, and the labels that will follow."""
    images, labels = digits.production
    picked = rng.integers(0, len(images), count)
    seen = images[picked] + rng.normal(0, 0.4, (count, 8, 8))
    if world.aged:
        seen = aged(seen)
    seen = seen.clip(0, 16)
    if world.unit_bug:
        seen[:, BUGGY_PIXEL[0], BUGGY_PIXEL[1]] *= 100
    truth = labels[picked].tolist()
    if world.relabelled:
        truth = [SWAPPED.get(label, label) for label in truth]
    return seen.round(3), truth


def aged(images: Images) -> Images:
    """Blurred over neighbouring pixels, moved one to the right, half the contrast, a grey veil."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    blurred = sum(
        padded[:, 1 + dy : 9 + dy, 1 + dx : 9 + dx] * weight
        for dy, dx, weight in (
            (0, 0, 0.4),
            (0, 1, 0.15),
            (0, -1, 0.15),
            (1, 0, 0.15),
            (-1, 0, 0.15),
        )
    )
    moved = np.roll(blurred, 1, axis=2)
    moved[:, :, 0] = 0
    return np.asarray(moved * 0.5 + 2.5)
