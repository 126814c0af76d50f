"""Old training data and newly labelled rows -> what to train on, and what the gate keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat.columns import LABEL, PREDICTION, TIME, VERSION
from homeostat.records import Task
from retrain import tables
from retrain.contradiction import Bools, Labelled, contradicted, encode, onset

MOST_HOLDOUT = 20_000


def split_newest(times: NDArray[Any], share: float, least: int) -> int:
    """From which row on the new rows, in time order, are kept for the gate.

    Every row kept is newer than every row trained on. Kept is the share asked for, or `least`
    rows where half of all is at least that many: with fewer the gate could not decide. Rows of
    one moment stay together unless they are so many that little would be left to train on.
    """
    rows = len(times)
    wanted = max(int(np.ceil(rows * share)), min(least, rows // 2))
    cut = rows - min(wanted, MOST_HOLDOUT)
    if not 0 < cut < rows:
        return cut
    together = int(np.searchsorted(times, times[cut], side="left"))
    return together if together >= cut // 2 and rows - together <= MOST_HOLDOUT else cut


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the newer labels say of the older rows."""

    dropped_old: Bools
    dropped_new: Bools  # labelled rows from before the change
    contradicted_test: Bools


def contradictions(
    old: Any,
    new: Any,
    holdout: Any,
    test: Any | None,
    *,
    start: int,
    features: tuple[str, ...],
    target: str,
    task: Task,
    rng: np.random.Generator,
) -> Selection:
    """Look for old rows that the labels from after the change contradict.

    `start` is the first row of `new` and `holdout`, one after the other in time order, from after
    the change. Rows of
    the holdout help to judge test rows but choose no training row: what the candidate is trained
    on may not know the answers it will be asked for.
    """
    parts = [old, new, holdout, *([test] if test is not None else [])]
    matrices = encode([tables.column_arrays(part, features) for part in parts], features)
    labelled = [
        Labelled(x=matrix, y=_labels(part[target], task))
        for matrix, part in zip(matrices, parts, strict=True)
    ]
    was, fresh, kept = labelled[:3]
    first = min(start, len(fresh))
    before, after = _part(fresh, slice(0, first)), _part(fresh, slice(first, None))
    known = _join(was, before)
    flags = contradicted(known, after, known, task, rng)
    dropped_new = np.zeros(len(fresh), bool)
    dropped_new[:first] = flags[len(was) :]
    newest = _join(after, _part(kept, slice(max(0, start - len(fresh)), None)))
    flagged = np.zeros(0, bool)
    if test is not None:
        flagged = contradicted(labelled[3], newest, known, task, rng)
    return Selection(
        dropped_old=flags[: len(was)], dropped_new=dropped_new, contradicted_test=flagged
    )


def labelled_rows(window: Any, schema: Any, target: str, classes: tuple[str, ...]) -> Any:
    """The journal's rows that carry a usable label, with the target in its own type, in time order.

    The journal's own columns stay beside it; a label that is no value of the target's type is
    left out.
    """
    labelled = window.filter(window[LABEL].is_valid()).sort_by(TIME)
    values = tables.target_values(labelled[LABEL], schema.field(target).type, classes)
    usable = values.is_valid()
    labelled = (
        labelled.append_column(target, values)
        if target not in labelled.column_names
        else (labelled.set_column(labelled.column_names.index(target), target, values))
    )
    return labelled.filter(usable)


def times_us(rows: Any) -> NDArray[np.int64]:
    return np.asarray(rows[TIME].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy())


def first_changed_row(journal: Any, task: Task, version: str) -> int:
    """Since when the champion errs more, by its errors on labelled rows in time order.

    0 where no rise is to be seen. Rows that another version answered tell nothing of it.
    """
    own = np.flatnonzero(np.array(journal[VERSION].to_pylist(), dtype=object) == version)
    first = onset(_errors(journal.take(own), task))
    return int(own[first]) if first else 0


def _errors(journal: Any, task: Task) -> NDArray[np.float64]:
    said, was = journal[PREDICTION].to_pylist(), journal[LABEL].to_pylist()
    if task is Task.CLASSIFICATION:
        return np.array([str(a) != str(b) for a, b in zip(said, was, strict=True)], np.float64)
    return np.array([abs(float(a) - float(b)) for a, b in zip(said, was, strict=True)], np.float64)


def _labels(column: Any, task: Task) -> NDArray[Any]:
    if task is Task.CLASSIFICATION:
        return np.array(tables.class_names(column, ()), dtype=str)
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _part(rows: Labelled, where: slice) -> Labelled:
    return Labelled(x=rows.x[where], y=rows.y[where])


def _join(first: Labelled, second: Labelled) -> Labelled:
    return Labelled(x=np.vstack([first.x, second.x]), y=np.concatenate([first.y, second.y]))
