"""What may be said of a row's label by a stated delay: a pure function."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Standing(StrEnum):
    """Labels that come early are not like the rest (a flight that arrived is a flight that was not
    cancelled): before the delay is over, nothing may be concluded from them."""

    MATURED = "matured"  # older than the delay, and labelled
    PENDING = "pending"  # younger than the delay, whether labelled or not
    NEVER = "never"  # older than the delay without a label; one that comes yet makes it matured


def standing(
    times_us: NDArray[np.int64], labelled: NDArray[np.bool_], *, now_us: int, delay_us: int
) -> NDArray[np.str_]:
    """Of each row, by the time of its prediction."""
    old = times_us <= now_us - delay_us
    named = np.where(labelled, Standing.MATURED.value, Standing.NEVER.value)
    return np.where(old, named, Standing.PENDING.value)
