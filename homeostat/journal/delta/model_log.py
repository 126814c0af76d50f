"""The tables of one model, together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from homeostat.journal.delta import tables
from homeostat.journal.delta.snapshot import Snapshot
from homeostat.journal.delta.store import Store
from homeostat.journal.delta.tables import TableRef
from homeostat.records import Task


@dataclass(frozen=True, kw_only=True)
class ModelLog:
    store: Store
    task: Task
    predictions: TableRef
    labels: TableRef
    quarantine: TableRef

    def rows(self) -> Snapshot | None:
        return self.store.open(self.predictions)

    def given_labels(self) -> Snapshot | None:
        return self.store.open(self.labels)


def of_model(store: Store, url: str, model: str, task: Task) -> ModelLog:
    return ModelLog(store=store, task=task, **tables.tables_of(url, model, task))


def of_version_7(ids: Any) -> bool:
    """Whether all of some ids are UUIDs of version 7, as the server gives them."""
    import pyarrow.compute as pc

    ours = pc.and_(
        pc.equal(pc.binary_length(ids), 36),
        pc.equal(pc.utf8_slice_codeunits(ids, 14, 15), "7"),
    )
    return pc.all(ours).as_py() is not False


def text_range(ids: Any) -> tuple[str, str]:
    """The first and the last of some ids as text; two that nothing is between where there are none.

    Ids of version 7 sort by time, so that the range of a window's ids is a range of time; for the
    callers' own ids it is a true range as well, only seldom a narrow one.
    """
    import pyarrow.compute as pc

    found = pc.min_max(ids).as_py()
    least, most = found["min"], found["max"]
    return ("", "") if least is None else (least, most)
