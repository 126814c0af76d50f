"""One version's side of the protocol: what its requests become, and what its answers look like."""

from __future__ import annotations

from homeostat.records import ModelSpec
from serving.open_inference.answers import AnswerWriter
from serving.open_inference.rest_answer import RestForm
from serving.open_inference.rest_request import read_head, wanted
from serving.open_inference.tensors import TensorReader
from serving.requests.parsing import Rows


class InferReader:
    """Reads the protocol's requests for one version."""

    def __init__(self, spec: ModelSpec) -> None:
        self.tensors = TensorReader(spec)
        self.writer = AnswerWriter(spec)

    def read(self, body: bytes, length: int | None) -> Rows:
        """`length`: of the JSON part, if not all of it is."""
        head, tensors = read_head(body, length)
        rows = self.tensors.rows(tensors)
        if head.outputs:
            self.writer.check_all((each.name, each.parameters or ()) for each in head.outputs)
        outputs = wanted(head, self.writer.usual)
        all_binary = all(binary for _, binary in outputs)
        rows.form = RestForm(self.writer, head.id, outputs, all_binary)
        return rows
