"""From rows as they lie in the table to those that readers get, with the labels beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat import columns as names
from homeostat.journal.delta.bounds import Clause
from homeostat.journal.delta.model_log import ModelLog, text_range
from homeostat.journal.delta.snapshot import Snapshot
from homeostat.journal.reading import quarantine
from homeostat.journal.reading.label_join import joined, newest_labels
from homeostat.journal.reading.quarantine import NOTHING, Aside
from homeostat.journal.reading.recorded import Widths, hidden, other_width, widths
from homeostat.journal.reading.request import MORE, Request
from homeostat.journal.reading.rows import feature_columns, label_values
from homeostat.journal.reading.selection import choose
from homeostat.journal.reading.ties import settled


@dataclass(frozen=True)
class Given:
    """Rows as readers get them."""

    table: Any
    left_out: int  # rows that lack what was asked
    widths: Widths


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

    def given(
        self,
        found: Any,
        aside: Aside,
        *,
        weight: float | None = None,
        limit: int | None = None,
        held: Any | None = None,
    ) -> Given:
        """Of all rows of some time those wanted, with labels: those held, or the table's."""
        found = settled(found, self.predictions, self.request)
        chosen = choose(
            found,
            aside.mask(found),
            self.lacking(found),
            thin=not self.request.weights,
            weight=weight,
            limit=limit,
        )
        met = widths(found, self.request.features)
        return Given(self.frame(found.take(pa.array(chosen.positions)), held), chosen.left_out, met)

    def lacking(self, found: Any) -> NDArray[np.bool_]:
        request = self.request
        wanted = {*request.features, *request.where} - request.as_recorded
        return hidden(found, wanted) | other_width(found, request.features)

    def aside(self, found: Any) -> Aside:
        """What is put aside of some rows, and maybe of others."""
        return self.aside_between(*text_range(found["prediction_id"])) if len(found) else NOTHING

    def aside_between(self, least: str, most: str) -> Aside:
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
