"""Room for one more in a queue that others have filled."""

from __future__ import annotations

from collections.abc import Mapping


def has_share(held: Mapping[str, int], waiting: int, most: int, caller: str, count: int) -> bool:
    """Whether a caller, who holds what `held` says, stays within its share of `most` with `count`
    more; and all together, who have `waiting`, within twice as much."""
    share = most // len(held.keys() | {caller})
    return held.get(caller, 0) + count <= share and waiting + count <= 2 * most
