"""Visits to a small shop, made up: the example data of a new project."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

DEVICES = ("phone", "laptop", "tablet")


def shop_rows(count: int, *, seed: int) -> pd.DataFrame:
    """Who bought, by what is known of a visit. Bought depends on all columns, with noise."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    device = rng.choice(DEVICES, size=count, p=[0.6, 0.3, 0.1])
    visits = rng.poisson(3, size=count) + 1
    minutes = rng.gamma(2.0, 4.0, size=count).round(1)
    basket = rng.gamma(2.0, 20.0, size=count).round(2)
    hour = rng.integers(0, 24, size=count)
    odds = 0.5 * visits + 0.12 * minutes - 0.035 * basket + 0.8 * (device == "laptop")
    odds += np.where((hour >= 18) & (hour < 23), 0.7, 0.0) - 1.8
    bought = rng.random(count) < 1 / (1 + np.exp(-2 * odds))
    return pd.DataFrame(
        {
            "visits": visits,
            "minutes": minutes,
            "basket": basket,
            "hour": hour,
            "device": device,
            "bought": bought.astype(int),
        }
    )
