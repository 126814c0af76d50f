"""Reading the prediction log: a window of rows with their labels, and what is put aside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from homeostat import columns as names
from homeostat.journal import quarantine, rows, tables
from homeostat.journal.commits import commit, committed
from homeostat.journal.encoding import INPUT, column_of, encode_labels, microseconds
from homeostat.journal.scan import column, moment, scan
from homeostat.journal.tables import open_table, reaching
from homeostat.records import Label, Task

LABEL = "label"  # the name of the label that is compared with the prediction
CLOCKS = timedelta(hours=1)  # how far the clocks of two machines may be apart
VECTORS = {names.PROBABILITIES: "probabilities", names.EMBEDDING: "embedding"}


class Journal:
    """The log of one model. Every call sees what is committed when it is made."""

    def __init__(self, url: str, model: str, task: Task) -> None:
        self._task = task
        self._predictions = tables.predictions(url, model, task)
        self._labels = tables.labels(url, model)
        self._quarantine = tables.quarantine(url, model)

    def window(
        self,
        start: datetime,
        end: datetime,
        features: Sequence[str],
        *,
        versions: Sequence[str] = (),
        embedding: bool = False,
        quarantined: bool = False,
        limit: int | None = None,
    ) -> Any:
        """Rows with start <= time < end as a pyarrow.Table, in time order.

        Columns: the features under their own names, then those of homeostat.columns
        (probabilities and embedding only if asked for). A tensor's features are told apart by
        their order, so name all of them. With `limit`, the newest so many rows. Of rows with the
        same id the newest counts. Rows in quarantine are left out unless asked for. Raises
        JournalUnavailable; InputError where a tensor has another number of features.
        """
        handle = open_table(self._predictions)
        hidden = None if quarantined else quarantine.hidden_ids(self._quarantine)
        if handle is not None and limit is not None:
            # which rows they are, before all columns of every row are read
            light = self._rows(handle, start, end, versions, ["prediction_id", "time"])
            chosen = rows.newest_per_id(light, hidden=hidden, limit=limit)
            times = rows.integers(light["time"])
            start = moment(times[chosen[0]]) if len(chosen) else end
        if handle is None:
            found = self._predictions.schema.empty_table()
        else:
            wanted = [*self._predictions.schema.names, INPUT, *map(column_of, features)]
            left_out = {
                "model",
                "date",
                "role",
                "key",
                "latency_us",
                "cached",
                "weight",
                "descriptors",
            }
            left_out |= set() if embedding else set(VECTORS.values())
            wanted = [name for name in dict.fromkeys(wanted) if name not in left_out]
            found = self._rows(handle, start, end, versions, wanted)
            found = found.take(rows.newest_per_id(found, hidden=hidden, limit=limit))
        return self._frame(found, features, start, VECTORS if embedding else {})

    def add_labels(
        self, labels: Sequence[Label], *, writer_id: str, now: datetime | None = None
    ) -> None:
        """Store labels at once, for imports without a server. Raises JournalUnavailable."""
        if not labels:
            return
        received = microseconds(now or datetime.now(UTC))
        data = pa.Table.from_batches([encode_labels(labels, received)])
        data = tables.with_partitions(data, self._labels, "received")
        app_id = f"import:{writer_id}"
        stored = False
        while not stored:  # another import under this id may be faster
            version = committed(self._labels, app_id) + 1
            stored = commit(self._labels, data, app_id=app_id, version=version)

    def quarantine(self, ids: Sequence[str], reason: str, *, key: str, now: datetime) -> int:
        """Put rows aside under a key; how many were not yet. The same call again adds none."""
        return quarantine.put(self._quarantine, ids, reason, key=key, now=now)

    def release(self, key: str, *, now: datetime | None = None) -> int:
        """Undo what was put aside under a key; how many rows that were."""
        return quarantine.release(self._quarantine, key=key, now=now or datetime.now(UTC))

    def pending_labels(self) -> int:
        """How many ids have a label but no prediction (yet)."""
        labelled = column(self._labels, "prediction_id", pc.field("name") == LABEL).unique()
        predicted = column(self._predictions, "prediction_id")
        known = pc.is_in(labelled, value_set=predicted)
        return len(labelled) - int(rows.flags(known).sum())

    def newest_time(self) -> datetime | None:
        """Of the newest row; None for an empty log."""
        handle = open_table(self._predictions)
        if handle is None:
            return None
        with reaching(self._predictions):
            days = [part["date"] for part in handle.partitions()]
            if not days:
                return None
            newest = f"date = '{max(days)}'"
            times = scan(self._predictions, handle, ["time"], files=newest)["time"]
        return moment(rows.integers(times).max())

    def _rows(
        self,
        handle: Any,
        start: datetime,
        end: datetime,
        versions: Sequence[str],
        columns: Sequence[str],
    ) -> Any:
        time = pc.field("time")
        where = (time >= pa.scalar(start, _TIME)) & (time < pa.scalar(end, _TIME))
        if versions:
            where &= pc.field("version").isin(list(versions))
        days = f"date >= '{_day(start)}' AND date <= '{_day(end)}'"
        with reaching(self._predictions):
            return scan(self._predictions, handle, columns, where=where, files=days)

    def _frame(
        self, found: Any, features: Sequence[str], start: datetime, vectors: dict[str, str]
    ) -> Any:
        labels = self._labels_since(start)
        newest = rows.newest_label(rows.combined(found["prediction_id"]), labels)
        known = {
            names.PREDICTION_ID: found["prediction_id"],
            names.TIME: found["time"],
            names.VERSION: found["version"],
            names.PREDICTION: found["prediction"],
            names.LABEL: rows.label_values(labels, newest, self._task),
            names.LABEL_TIME: labels["time"].take(newest),
        }
        known |= {name: found[stored] for name, stored in vectors.items()}
        inputs = rows.feature_columns(found, features)
        return pa.table([*inputs, *known.values()], names=[*features, *known])

    def _labels_since(self, start: datetime) -> Any:
        """Labels that may belong to rows from `start` on: none comes before its prediction."""
        handle = open_table(self._labels)
        if handle is None:
            return self._labels.schema.empty_table()
        since = pa.scalar(max(start, _EARLIEST) - CLOCKS, _TIME)
        where = (pc.field("received") >= since) | (pc.field("time") >= since)
        columns = ["prediction_id", "value", "time", "received", "ordinal"]
        with reaching(self._labels):
            return scan(self._labels, handle, columns, where=where & (pc.field("name") == LABEL))


_TIME = pa.timestamp("us", tz="UTC")
_EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)


def _day(time: datetime) -> str:
    return time.astimezone(UTC).date().isoformat()  # strftime pads no year
