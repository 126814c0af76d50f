"""`homeostat rollback`: where it goes, and that it stays there however often it is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_kit import MODEL
from test_trial_command import BEGAN, House

from homeostat.errors import Conflict
from homeostat.records import Rollout, from_json
from homeostat.state import rollouts
from retrain import publish


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Version 1 served first, then 2, now 3."""
    made = House(tmp_path / "project")
    with made.state.begin() as tx:
        rollouts.add_version(tx, MODEL, made.versions[2], None, BEGAN)
    made.order("promote", "2", "--force")
    made.order("promote", "3", "--force")
    yield made
    made.state.close()


def published(house: House) -> Rollout:
    return from_json(house.settings.rollout_path.read_bytes(), Rollout)


def test_given_twice_it_stays_where_it_went(house: House) -> None:
    """The version that was left serves again only by name; the refusal says how, and since when
    it is so. Another one that served may be named, too, and is stayed at likewise."""
    assert "version 2 serves again (epoch 4)" in house.order("rollback")
    back = house.rollout()
    refusal = f"version 3 of shapes was rolled back from at {back.created_at:%F %T} UTC"
    for again in (("rollback",), ("rollback", "--pause")):
        with pytest.raises(Conflict, match=refusal) as refused:
            house.order(*again)
        assert "`homeostat rollback --to 3` serves it again" in str(refused.value)
    assert house.rollout() == published(house) == back
    assert "version 1 serves again (epoch 5)" in house.order("rollback", "--to", "1")
    with pytest.raises(Conflict, match="version 2 of shapes was rolled back from"):
        house.order("rollback")
    assert "version 3 serves again (epoch 6)" in house.order("rollback", "--to", "3")


def test_a_trial_in_between_does_not_open_the_way(house: House) -> None:
    """It is a newer record, with the same champion."""
    house.order("rollback")
    house.order("trial", "start", "1", "--as", "shadow")
    with pytest.raises(Conflict, match="version 3 of shapes was rolled back from"):
        house.order("rollback")
    assert house.rollout().champion.version == "2"


def test_after_another_promotion_it_goes_back_again(house: House) -> None:
    """What was promoted since is what one flees from."""
    house.order("rollback")
    house.order("promote", "3", "--force")
    assert "version 2 serves again (epoch 6)" in house.order("rollback")


def test_one_cut_off_before_servers_were_told_is_ended_by_the_next(house: House) -> None:
    """The record was written and its file was not: given again, the command refuses to go on
    from there, and servers learn of it."""
    before = published(house)
    house.order("rollback")
    house.settings.rollout_path.unlink()
    publish.publish(house.settings.rollout_path, before)
    with pytest.raises(Conflict, match="rolled back from"):
        house.order("rollback")
    assert published(house).champion.version == "2"
