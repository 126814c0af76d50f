"""The rollout record as a small file beside the journal, which servers poll."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from homeostat.jobs import write_atomically
from homeostat.records import Rollout, from_json, to_json

logger = logging.getLogger(__name__)


def publish(path: Path, rollout: Rollout) -> bool:
    """Replace the file unless it says the same or something newer; whether it was written."""
    there = _published(path)
    if there is not None and there.epoch > rollout.epoch:
        logger.warning(
            "%s holds epoch %s, newer than %s: left as it is", path, there.epoch, rollout.epoch
        )
        return False
    if there == rollout:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_json(rollout))
    return True


def _published(path: Path) -> Rollout | None:
    try:
        return from_json(path.read_bytes(), Rollout)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        logger.warning("%s is not a rollout record (%s): replaced", path, error)
        return None
