"""A model that says the same to every row: what is answered when no version can."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from homeostat.model_runtime.contract import Batch, Outputs
from homeostat.model_runtime.loop_rows import most_rows
from homeostat.records import ModelSpec, Task

DEFAULT = "default"  # the version that such an answer carries


class DefaultAnswer:
    """See model_runtime.contract.LoadedModel; takes the rows that `spec` takes."""

    def __init__(self, spec: ModelSpec, text: str) -> None:
        """`text`: JSON; the settings have checked that it suits the task."""
        self.spec = replace(spec, version=DEFAULT)
        self.loop_rows = most_rows(spec)  # it answers any number at once
        value = json.loads(text)
        self._said: Any = float(value) if spec.task is Task.REGRESSION else value

    def predict(self, batch: Batch) -> Outputs:
        return Outputs([self._said] * batch.rows)

    def close(self) -> None: ...
