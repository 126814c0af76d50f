"""`homeostat gate`: what a person cannot ask of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_trial_command import House

from homeostat.errors import Conflict


def test_the_champion_is_compared_with_no_one(tmp_path: Path) -> None:
    """It would meet itself, and wait for a person to promote what serves already."""
    house = House(tmp_path / "project")
    try:
        with pytest.raises(Conflict, match="version 1 of shapes is the champion"):
            house.order("gate", "1")
    finally:
        house.state.close()
