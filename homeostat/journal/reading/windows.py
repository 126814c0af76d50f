"""A window of the log as one table: which rows, which columns, and the labels beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from homeostat import columns as names
from homeostat.journal.delta.bounds import Clause, during
from homeostat.journal.delta.model_log import ModelLog, text_range
from homeostat.journal.delta.snapshot import Snapshot
from homeostat.journal.reading import quarantine
from homeostat.journal.reading.label_join import joined, newest_labels
from homeostat.journal.reading.quarantine import NOTHING, Aside
from homeostat.journal.reading.request import MORE, Request
from homeostat.journal.reading.rows import feature_columns, integers, label_values, moment
from homeostat.journal.reading.selection import Chosen, choose

BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


def window(
    log: ModelLog, start: datetime, end: datetime, request: Request, *, limit: int | None
) -> Any:
    predictions = log.rows()
    reader = Reader(log, request, predictions)
    within, weight = during(start, end), None
    if limit is not None and predictions is not None:
        # which rows they are, before all columns of every row are read
        light = reader.rows(request.light(predictions.schema), within)
        chosen = reader.chosen(light, limit=limit)
        first = None
        if len(chosen.positions):
            first = moment(integers(light["time"])[chosen.positions[0]])
        within, weight = during(first or end, end), chosen.weight
    found = reader.rows(request.full(reader.schema), within)
    chosen = reader.chosen(found, weight=weight, limit=limit)
    return reader.frame(found.take(pa.array(chosen.positions)))


def newest(log: ModelLog, count: int, request: Request, *, before: datetime) -> Any:
    """The last `count` rows, from as few files as hold them."""
    predictions = log.rows()
    if predictions is None or count <= 0:
        return window(log, before, before, request, limit=0)
    reader = Reader(log, request, predictions)
    light, wanted = request.light(predictions.schema), count
    while True:
        start = _start_of(predictions, wanted, before)
        if start is None:
            return window(log, BEGINNING, before, request, limit=count)
        chosen = reader.chosen(reader.rows(light, during(start, before)))
        if len(chosen.positions) >= count:
            return window(log, start, before, request, limit=count)
        wanted *= 4


def _start_of(predictions: Snapshot, wanted: int, before: datetime) -> datetime | None:
    """Since when so many rows may have come; None: there are fewer."""
    rows, start = 0, before
    for span in predictions.spans():
        if span.least is None:
            return None
        if span.least < before:
            rows, start = rows + span.rows, min(start, span.least)
        if rows >= wanted:
            return start
    return None


@dataclass(frozen=True)
class Reader:
    """What several steps of one reading share."""

    log: ModelLog
    request: Request
    predictions: Snapshot | None

    @property
    def schema(self) -> Any:
        return self.log.predictions.schema if self.predictions is None else self.predictions.schema

    def rows(self, columns: Sequence[str], within: Sequence[Clause]) -> Any:
        if self.predictions is None:
            return self.schema.empty_table().select(columns)
        where = self.request.row_filter(self.schema)
        return self.request.sliced(self.predictions.read(columns, within, where), self.schema)

    def chosen(
        self, found: Any, *, weight: float | None = None, limit: int | None = None
    ) -> Chosen:
        aside = self.aside(*text_range(found["prediction_id"])) if found.num_rows else NOTHING
        return choose(found, aside, thin=not self.request.weights, weight=weight, limit=limit)

    def aside(self, least: str, most: str) -> Aside:
        if self.request.quarantined:
            return NOTHING
        return quarantine.standing(self.log.store, self.log.quarantine, least, most)

    def frame(self, found: Any, held: Any | None = None) -> Any:
        """Rows in time order as readers get them, with their labels: those held, or the table's."""
        found = found.combine_chunks()
        if held is None:
            labels = newest_labels(self.log.given_labels(), found, name=self.request.label)
        else:
            labels = joined(found, held)
        known = {
            names.PREDICTION_ID: found["prediction_id"],
            names.TIME: found["time"],
            names.VERSION: found["version"],
            names.PREDICTION: found["prediction"],
            names.LABEL: label_values(labels["value"], self.log.task),
            names.LABEL_TIME: labels["time"],
        }
        known |= {name: self._more(found, labels, name) for name in self.request.more}
        inputs = feature_columns(found, self.request.features, self.schema)
        return pa.table([*inputs, *known.values()], names=[*self.request.features, *known])

    def _more(self, found: Any, labels: Any, name: str) -> Any:
        if name == names.LABEL_KNOWN:
            return labels["known"]
        column = found[MORE[name]]
        return column.fill_null(1.0) if name == names.WEIGHT else column
