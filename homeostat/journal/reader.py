"""Reading the prediction log: windows of rows with their labels, and what is put aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Unpack

import pyarrow as pa

from homeostat.journal.delta import tables
from homeostat.journal.delta.bounds import Bound
from homeostat.journal.delta.model_log import of_model
from homeostat.journal.delta.snapshot import again
from homeostat.journal.delta.store import DeltaStore, Store
from homeostat.journal.encoding.schema import encode_labels, microseconds
from homeostat.journal.reading import (
    acceptance,
    batches,
    label_arrivals,
    label_join,
    ledger,
    quarantine,
    windows,
)
from homeostat.journal.reading.ledger import Ledger
from homeostat.journal.reading.put_aside import PutAside, put_aside
from homeostat.journal.reading.request import Asked, request_of
from homeostat.journal.reading.row_reader import Given
from homeostat.journal.reading.rows import aware, integers, moment
from homeostat.labels import LABEL
from homeostat.records import Label, ModelSpec, Task
from homeostat.settings_of_serving import JournalSettings

BEGINNING, FOREVER = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
LeftOut = Callable[[int], object]


def ignored(rows: int) -> None:
    """Nobody asked how many rows were left out."""


class Journal:
    """The log of one model. Every call sees what is committed when it is made.

    All calls raise JournalUnavailable where the tables' storage does not answer.
    """

    def __init__(self, url: str, model: str, task: Task, *, store: Store | None = None) -> None:
        self._store: Store = DeltaStore() if store is None else store
        self._log = of_model(self._store, url, model, task)

    def window(
        self,
        start: datetime,
        end: datetime,
        features: Sequence[str],
        *,
        limit: int | None = None,
        left_out: LeftOut = ignored,
        **asked: Unpack[Asked],
    ) -> Any:
        """Rows with start <= time < end as a pyarrow.Table, in time order.

        Columns: the features under their own names, then those of homeostat.columns; of these
        probabilities and embedding only with `embedding`, the role where `roles` are given, the
        weight with `weights`, and KEY, DESCRIPTORS, RECORDED or LABEL_KNOWN where named in `also`.
        A tensor's features are told apart by their order, so name all of them; InputError where no
        tensor has as many elements.

        Without `roles`, every role but "shadow" and "batch": a shadow's rows share their ids with
        the champion's, a batch run's are no traffic. `where` is a slice: values allowed, by
        feature. `versions`, `roles` and `where` come first: of the rows they leave, the newest with
        an id counts, and of several of one moment the one with the greatest version, role, weight,
        recorded settings, then the greatest by all else it holds, as text. With `limit`, the newest
        so many rows. Rows in quarantine are left out unless asked for with `quarantined`. Where
        rows were logged at several rates (journal.sample), those of higher rates are thinned, so
        that every row stands for equally many; with `weights`, every row is there and `_weight`
        says how many it stands for. `label` is the name of the labels joined.

        A row of which a feature was not written down (journal.inputs, redact, hash), or whose
        tensor has another number of elements, is left out, and `left_out` is told how many were:
        what is null was null. Features in `as_recorded` are taken as they are: null, NaN or a hash.
        """
        request = request_of(features, asked)
        within = aware("start", start), aware("end", end)
        found = again(lambda: windows.window(self._log, *within, request, limit=limit))
        return _told(found, left_out)

    def newest(
        self,
        count: int,
        features: Sequence[str],
        *,
        before: datetime = FOREVER,
        left_out: LeftOut = ignored,
        **asked: Unpack[Asked],
    ) -> Any:
        """The newest so many rows, as `window` gives them. Read backwards: held are about as many
        rows as wanted, and those on the way that are left out."""
        request = request_of(features, asked)
        within = BEGINNING, aware("before", before)
        found = again(lambda: windows.window(self._log, *within, request, limit=count))
        return _told(found, left_out)

    def batches(
        self,
        start: datetime,
        end: datetime,
        features: Sequence[str],
        *,
        rows: int = 65_536,
        left_out: LeftOut = ignored,
        **asked: Unpack[Asked],
    ) -> Iterator[Any]:
        """The rows of `window` as pyarrow.RecordBatches of at most `rows`, for windows larger than
        memory: the same columns, in the same time order.

        Held at once are eight bytes for each row of the window (which ids come twice), the ids that
        do come twice, the row groups whose times overlap (a few of them in a table that upkeep
        looks after), and the labels of a batch; where ids are the callers' own, the ids, times and
        labels of some million rows at a time, for which the labels since then are read once. A file
        that is deleted meanwhile is no trouble; rows that are committed meanwhile may be missing.
        `left_out` is told as the rows come, InputError for tensors at the end.
        """
        request = request_of(features, asked)
        within = aware("start", start), aware("end", end)
        return batches.batches(self._log, *within, request, rows=rows, left_out=left_out)

    def add_labels(
        self, labels: Sequence[Label], *, writer_id: str, now: datetime | None = None
    ) -> None:
        """Store labels at once, committed when it returns: for programs of your own that have
        labels and no server. (`homeostat labels import` resumes, and says what did not match.)"""
        if not labels:
            return
        received = microseconds(aware("now", now or datetime.now(UTC)))
        data = pa.Table.from_batches([encode_labels(labels, received)])
        table = self._log.labels
        data = tables.with_partitions(data, table)
        app_id = f"import:{writer_id}"
        stored = False
        while not stored:  # another import under this id may be faster
            version = self._store.committed(table, app_id) + 1
            stored = self._store.commit(table, data, app_id=app_id, version=version)

    def outcomes(self, name: str, start: datetime, end: datetime, *, history: bool = False) -> Any:
        """Labels of a name with start <= their time < end as a pyarrow.Table, in time order: user
        feedback, revenue, whatever else than the label that predictions are compared with.

        Columns: `_prediction_id`, `_label`, the same as `_number` where it is one, `_source`,
        `_label_time`. Of each id the latest; with `history`, corrected ones as well.
        """
        within = aware("start", start), aware("end", end)
        return again(lambda: label_join.outcomes(self._log, name, *within, history=history))

    def quarantine(self, ids: Sequence[str], reason: str, *, key: str, now: datetime) -> int:
        """Put rows aside under a key; how many were not yet. The same call again adds none."""
        table, now = self._log.quarantine, aware("now", now)
        return again(lambda: quarantine.put_ids(self._store, table, ids, reason, key=key, now=now))

    def quarantine_range(
        self,
        start: datetime,
        end: datetime,
        reason: str,
        *,
        key: str,
        now: datetime,
        version: str | None = None,
    ) -> int:
        """Put aside the rows with start <= time < end, of one version or of all, also those that
        come later; 1, or 0 where that was done before."""
        table, now = self._log.quarantine, aware("now", now)
        within = aware("start", start), aware("end", end)
        return again(
            lambda: quarantine.put_range(
                self._store, table, *within, version, reason, key=key, now=now
            )
        )

    def release(self, key: str, *, now: datetime | None = None) -> int:
        """Undo what was put aside under a key; how many ids and ranges that were."""
        moment_ = aware("now", now or datetime.now(UTC))
        table = self._log.quarantine
        return again(lambda: quarantine.release(self._store, table, key=key, now=moment_))

    def put_aside(self) -> tuple[PutAside, ...]:
        """What stands in quarantine, by its keys, the newest decision first."""
        return again(lambda: put_aside(self._store, self._log.quarantine))

    def pending_labels(self, *, label: str = LABEL, since: datetime | None = None) -> int:
        """How many ids have a label but no prediction (yet), apart from those that sampling left
        out; with `since`, of labels that came, or are, newer."""
        since = None if since is None else aware("since", since)
        return again(lambda: label_join.pending(self._log, name=label, since=since))

    def oldest_labelled(
        self, since: datetime, *, back_to: datetime = BEGINNING, label: str = LABEL
    ) -> datetime | None:
        """The time of the oldest row with a label that was known only after `since`: so far back
        reaches what is newly labelled. None where nothing is. Rows before `back_to` are not looked
        at."""
        since, back_to = aware("since", since), aware("back_to", back_to)
        return again(
            lambda: label_arrivals.oldest_labelled(
                self._log, name=label, since=since, back_to=back_to
            )
        )

    def newest_time(self) -> datetime | None:
        """Of the newest row; None for an empty log."""
        return again(self._newest_time)

    def ledger(
        self, now: datetime, *, days: int = 30, label: str = LABEL, rows: int = ledger.ROWS
    ) -> Ledger:
        """How late labels come, what of each of the last days is labelled, and when the rest will
        be. From a sample by id, where the days have more than so many rows."""
        now = aware("now", now)
        return again(lambda: ledger.ledger(self._log, now, days=days, name=label, rows=rows))

    def accepts(self, spec: ModelSpec, settings: JournalSettings | None = None) -> str | None:
        """Why a version's rows, logged as the settings say, would not fit the table; None: they
        fit."""
        return again(lambda: acceptance.misfit(self._log, spec, settings or JournalSettings()))

    def _newest_time(self) -> datetime | None:
        predictions = self._log.rows()
        spans = [] if predictions is None else predictions.spans()
        if predictions is None or not spans:
            return None
        # Only files that may hold it are read: statistics are cut to milliseconds.
        least = None if any(span.most is None for span in spans) else spans[0].most
        times = predictions.read(["time"], [(Bound("time", least),)])["time"]
        return moment(integers(times).max()) if len(times) else None


def _told(found: Given, left_out: LeftOut) -> Any:
    if found.left_out:
        left_out(found.left_out)
    return found.table
