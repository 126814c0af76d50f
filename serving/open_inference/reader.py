"""One version's side of the protocol: what its requests become, and what its answers look like."""

from __future__ import annotations

import math

from homeostat.errors import InputError
from homeostat.records import FeatureKind, ModelSpec
from serving.open_inference.answers import AnswerWriter
from serving.open_inference.rest_answer import RestForm
from serving.open_inference.rest_request import read_head, wanted
from serving.open_inference.tensors import TensorReader
from serving.requests.parsing import Rows


class InferReader:
    """Reads the protocol's requests for one version."""

    def __init__(self, spec: ModelSpec, most_rows: float = math.inf) -> None:
        """Of more than `most_rows` no value is looked at."""
        self.most_rows = most_rows
        self.tensors = TensorReader(spec)
        # of strings and booleans: its rows become lists, value by value, however they came
        self.listed = any(feature.kind is not FeatureKind.NUMBER for feature in spec.features)
        self.writer = AnswerWriter(spec)

    def read(self, body: bytes, length: int | None) -> Rows:
        """`length`: of the JSON part, if not all of it is."""
        try:
            head, tensors = read_head(body, length, self.most_rows)
        except InputError as error:
            raise self.tensors.told(error) from None
        rows = self.tensors.rows(tensors)
        if head.outputs:
            self.writer.check_all((each.name, each.parameters or ()) for each in head.outputs)
        outputs = wanted(head, self.writer.usual)
        all_binary = all(binary for _, binary in outputs)
        rows.form = RestForm(self.writer, head.id, outputs, all_binary)
        return rows
