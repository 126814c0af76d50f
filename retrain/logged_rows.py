"""The log's newly labelled rows, batch by batch: in memory is only what may be trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from homeostat.columns import KEY, LABEL_KNOWN, TIME
from homeostat.jobs import DatasetJob
from homeostat.journal.reader import Journal
from homeostat.settings import Settings
from retrain.logged_inputs import require_inputs, with_inputs
from retrain.training_set import labelled_rows

logger = logging.getLogger(__name__)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Span:
    """The time of the rows that are new: start <= time < end, with a label known by `until`. Older
    ones are new where their label was known only after `since`."""

    since: datetime | None  # up to when earlier training sets looked; None: there was none
    until: datetime
    start: datetime
    end: datetime

    @property
    def looked_until_us(self) -> int | None:
        return None if self.until == EPOCH else (self.until - EPOCH) // MICROSECOND


NOTHING = Span(since=None, until=EPOCH, start=EPOCH, end=EPOCH)


def span_of(since: datetime | None, until: datetime, delay: timedelta) -> Span:
    start = EPOCH if since is None else since - delay + MICROSECOND
    return Span(since=since, until=until, start=start, end=until - delay + MICROSECOND)


def new_rows(
    job: DatasetJob, settings: Settings, schema: Any, features: tuple[str, ...], span: Span
) -> Any:
    """Matured labelled rows of the span, in time order, the newest max_rows."""
    model, most = settings.model, settings.retrain.max_rows
    names = features if job.spec is None else job.spec.names
    if job.spec is not None:
        require_inputs(settings.journal, names, features)
    classes = model.classes or (job.spec.classes if job.spec else ())
    kept: list[Any] = []
    count = left_out = 0
    for logged in _logged(settings, names, span):
        found = _renamed(with_inputs(_new(logged, span), names), names, features)
        usable = labelled_rows(found, schema, model.target, classes)
        left_out += len(found) - len(usable)
        kept.append(usable)
        count += len(usable)
        if count > 2 * most:
            kept = [_newest(kept, most)]
            count = most
    if left_out:
        logger.warning("%s labels are no values of %s and were left out", left_out, model.target)
    return _newest(kept, most)


def _logged(settings: Settings, names: tuple[str, ...], span: Span) -> Iterator[Any]:
    """At least one table, so that the columns are known where there are no rows."""
    model = settings.model
    journal = Journal(settings.journal_path, model.name, model.task)
    also = [KEY, LABEL_KNOWN]
    start = span.start
    if span.since is not None:
        # Labels come as late as they come: as far back as they reach rows are looked through, but
        # not further than the log is kept.
        kept = _kept_since(span, settings.journal.keep)
        start = min(start, journal.oldest_labelled(span.since, back_to=kept) or start)
    left_out: list[int] = []
    yield journal.window(span.end, span.end, names, also=also)
    for batch in journal.batches(start, span.end, names, also=also, left_out=left_out.append):
        yield pa.Table.from_batches([batch])
    if left_out:
        logger.warning(
            "%s rows were logged without all of their inputs, or in another shape, and are left "
            "out of the training set",
            sum(left_out),
        )


def _kept_since(span: Span, keep: timedelta) -> datetime:
    return max(EPOCH, span.until - keep) if keep else EPOCH


def _new(logged: Any, span: Span) -> Any:
    """What was labelled only after the last training set was built is new as well."""
    new = pc.less_equal(logged[LABEL_KNOWN], span.until)
    if span.since is not None:
        late = pc.greater(logged[LABEL_KNOWN], span.since)
        new = pc.and_kleene(new, pc.or_kleene(pc.greater_equal(logged[TIME], span.start), late))
    return logged.filter(new).drop_columns([LABEL_KNOWN])


def _renamed(found: Any, names: tuple[str, ...], features: tuple[str, ...]) -> Any:
    """A tensor's elements without names of their own are the training data's columns in order."""
    if names == features or len(names) != len(features):
        return found
    renamed = dict(zip(names, features, strict=True))
    return found.rename_columns([renamed.get(name, name) for name in found.column_names])


def _newest(parts: list[Any], most: int) -> Any:
    found = pa.concat_tables(parts)
    return found[max(0, len(found) - most) :]
