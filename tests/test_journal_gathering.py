"""What a spool file's messages are put together to is what Arrow reads from them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_kit import tensor_rows
from test_journal_encoding import batches

from homeostat.journal.encoding.encoder import PredictionEncoder
from homeostat.journal.encoding.gathering import gathered
from homeostat.journal.encoding.recording import Recording
from homeostat.records import Task


def by_arrow(data: bytes) -> Any:
    stream = pa.ipc.open_stream(pa.BufferReader(data))
    return stream.read_all().combine_chunks()


def told(table: Any) -> tuple[Any, str]:
    """Types and values; NaN is like NaN here."""
    return table.schema, repr(table.to_pydict())


def streams(task: Task, given_batches: list[Any]) -> dict[Any, bytes]:
    """As the spool has them: the messages of a schema in a file of their own."""
    encoder = PredictionEncoder(task, Recording())
    found: dict[Any, bytes] = {}
    for batch in given_batches:
        encoded = encoder.encode(batch)
        if encoded is not None:
            before = found.get(encoded.layout, encoded.layout.start)
            found[encoded.layout] = before + encoded.data
    return found


@pytest.mark.parametrize("task", Task)
@given(data=st.data())
def test_messages_of_any_sizes_come_together_as_arrow_reads_them(
    task: Task, data: st.DataObject
) -> None:
    """Texts of all lengths, nulls, vectors of several widths; to the last whole message where the
    end is torn."""
    for stream in streams(task, data.draw(st.lists(batches(task), max_size=12))).values():
        found = gathered(pa.py_buffer(stream))
        assert found is not None
        assert told(found) == told(by_arrow(stream))
        found.validate(full=True)
        torn = gathered(pa.py_buffer(stream[: -data.draw(st.integers(1, 40))]))
        assert torn is not None
        assert told(torn) == told(found.slice(0, torn.num_rows))


def test_a_file_without_a_message_is_a_table_without_rows() -> None:
    (stream,) = streams(Task.CLASSIFICATION, [tensor_rows(["a"])]).keys()
    found = gathered(pa.py_buffer(stream.start))
    assert found is not None
    assert found.schema == stream.schema
    assert found.num_rows == 0


@given(data=st.data())
def test_a_damaged_file_is_left_to_arrow_or_gives_the_rows_that_it_would(
    data: st.DataObject,
) -> None:
    """One byte of a head is another one."""
    (stream,) = streams(Task.CLASSIFICATION, [tensor_rows(["a", "b"]), tensor_rows(["c"])]).values()
    heads = [at for at in range(len(stream)) if stream[at : at + 4] == b"\xff\xff\xff\xff"]
    at = data.draw(st.sampled_from(heads)) + data.draw(st.integers(0, 200))
    changed = bytearray(stream)
    changed[at] ^= data.draw(st.integers(1, 255))
    found = gathered(pa.py_buffer(bytes(changed)))
    if found is not None:
        found.validate(full=True)
        assert found.num_rows <= 3
