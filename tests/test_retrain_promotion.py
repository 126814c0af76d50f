"""Who serves: one rollout record and one event for each change, and the file servers read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from homeostat import events as types
from homeostat.errors import Conflict, IntegrityError, NotReady
from homeostat.records import Rollout, VersionRef, from_json
from homeostat.state import events, rollouts
from homeostat.state.store import State, open_state
from retrain.promotion import adopt, promote, roll_back
from retrain.publish import publish

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
ONE, TWO = VersionRef(version="1", digest="a" * 64), VersionRef(version="2", digest="b" * 64)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def promoted(state: State, ref: VersionRef, run_id: str | None) -> Rollout:
    with state.begin() as tx:
        return promote(
            tx, "digits", ref, run_id=run_id, reason="it is better", actor="loop", now=NOW
        )


def rolled_back(state: State, to: str | None = None) -> Rollout:
    with state.begin() as tx:
        return roll_back(tx, "digits", to=to, reason="worse", actor="ada", now=NOW)


def told(state: State) -> list[tuple[str, object, object]]:
    with state.begin() as tx:
        found = events.newest(tx, "digits")
    return [(e.type, e.data["version"], e.data["epoch"]) for e in reversed(found)]


def test_a_promotion_is_the_next_epoch_and_tells(state: State) -> None:
    """The champion of before becomes the previous one."""
    first, second = promoted(state, ONE, "run-1"), promoted(state, TWO, "run-2")
    assert (first.epoch, first.champion, first.previous) == (1, ONE, None)
    assert (second.epoch, second.champion, second.previous) == (2, TWO, ONE)
    with state.begin() as tx:
        assert rollouts.current(tx, "digits") == second
        known = rollouts.known(tx, "digits", "2")
    assert known is not None
    assert known.ref == TWO
    assert told(state) == [(types.MODEL_PROMOTED, "1", 1), (types.MODEL_PROMOTED, "2", 2)]


def test_a_run_is_promoted_once(state: State) -> None:
    """Not even after a rollback does an old run serve again by itself, and nothing is told."""
    promoted(state, ONE, "run-1")
    promoted(state, TWO, "run-2")
    with pytest.raises(Conflict):
        promoted(state, TWO, "run-2")
    rolled_back(state)
    with pytest.raises(Conflict):
        promoted(state, TWO, "run-2")
    assert len(told(state)) == 3
    assert promoted(state, TWO, None).epoch == 4  # a person may


def test_a_rollback_goes_to_the_previous_or_to_a_known_version(state: State) -> None:
    """And back again, as the one it left is then the previous."""
    promoted(state, ONE, "run-1")
    promoted(state, TWO, "run-2")
    back = rolled_back(state)
    assert (back.epoch, back.champion, back.previous, back.actor) == (3, ONE, TWO, "ada")
    assert rolled_back(state, to="2").champion == TWO
    assert told(state)[-1] == (types.MODEL_ROLLED_BACK, "2", 4)


def test_there_may_be_nothing_to_go_back_to(state: State) -> None:
    """The message tells which of the cases it is."""
    with pytest.raises(NotReady, match="ever promoted"):
        rolled_back(state)
    promoted(state, ONE, "run-1")
    with pytest.raises(NotReady, match="first"):
        rolled_back(state)
    with pytest.raises(NotReady, match="never served"):
        rolled_back(state, to="7")
    with pytest.raises(Conflict):
        rolled_back(state, to="1")


def test_an_alias_read_before_a_rollback_is_not_adopted_after_it(state: State) -> None:
    """The rollback is the newer word."""
    promoted(state, ONE, "run-1")
    promoted(state, TWO, "run-2")
    rolled_back(state)
    with state.begin() as tx, pytest.raises(Conflict, match="older"):
        adopt(tx, "digits", TWO, seen=2, now=NOW)


def test_an_alias_moved_by_hand_is_adopted_once(state: State) -> None:
    """What serves already is left alone."""
    promoted(state, ONE, "run-1")
    with state.begin() as tx:
        rollout = adopt(tx, "digits", TWO, seen=1, now=NOW)
        assert adopt(tx, "digits", TWO, seen=2, now=NOW + timedelta(hours=1)) == rollout
    assert (rollout.epoch, rollout.champion, rollout.previous) == (2, TWO, ONE)
    assert told(state)[1:] == [(types.MODEL_ADOPTED, "2", 2)]


def test_a_version_whose_files_changed_is_not_promoted(state: State) -> None:
    """The digest first seen holds, whatever the registry says later."""
    promoted(state, ONE, "run-1")
    promoted(state, TWO, "run-2")
    with pytest.raises(IntegrityError, match="changed"):
        promoted(state, VersionRef(version="1", digest="c" * 64), None)
    with state.begin() as tx:
        current = rollouts.current(tx, "digits")
    assert current is not None
    assert current.champion == TWO


def test_only_something_newer_is_published(state: State, tmp_path: Path) -> None:
    """Servers never see an older epoch, nor half a file."""
    first, second = promoted(state, ONE, "run-1"), promoted(state, TWO, "run-2")
    path = tmp_path / "rollout" / "digits.json"
    assert publish(path, first)
    assert not publish(path, first)
    assert publish(path, second)
    assert not publish(path, first)
    assert from_json(path.read_bytes(), Rollout) == second
    path.write_text("{half")
    assert publish(path, first)
    assert [file.name for file in path.parent.iterdir()] == ["digits.json"]
