"""The features that lie in a log, by name, from the log alone."""

from __future__ import annotations

from collections.abc import Sequence

from homeostat.journal.delta import tables
from homeostat.journal.delta.snapshot import again, open_snapshot
from homeostat.journal.encoding.schema import INPUT, column_of
from homeostat.records import Task


def logged_features(url: str, model: str, task: Task, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Features with a column of their own; else the elements of the newest tensor, under `names`
    where they are as many, or by number. None where inputs are not logged. JournalUnavailable."""
    return again(lambda: _features(url, model, task, names))


def _features(url: str, model: str, task: Task, names: Sequence[str]) -> tuple[str, ...]:
    snapshot = open_snapshot(tables.predictions(url, model, task))
    if snapshot is None:
        return ()
    prefix = column_of("")
    named = tuple(n.removeprefix(prefix) for n in snapshot.schema.names if n.startswith(prefix))
    if named or INPUT not in snapshot.schema.names:
        return named
    pieces = sorted(snapshot.pieces(()), key=lambda piece: piece.least, reverse=True)
    for piece in pieces:
        for value in snapshot.read_piece(piece, [INPUT], (), None)[INPUT].drop_null():
            width = len(value)
            return tuple(names) if len(names) == width else tuple(map(str, range(width)))
    return ()
