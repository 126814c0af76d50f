"""What a project does not want written down is nowhere: in no table, and in no spool file."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from journal_kit import NOON, Columns, column_rows, open_writer, tensor_rows

from homeostat.errors import InputError
from homeostat.journal.delta import tables
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.descriptors import DESCRIPTORS, describe
from homeostat.journal.encoding.privacy import keyed_hash
from homeostat.journal.encoding.recording import Recording
from homeostat.journal.encoding.schema import microseconds
from homeostat.records import Task

SECRET = "Rumpelstilzchen"
KEY = b"a key of thirty-two bytes, or so"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    table = DeltaTable(folder / "journal/digits/predictions").to_pyarrow_table()
    return sorted(table.to_pylist(), key=lambda row: row["prediction_id"])


def matrix_rows(ids: list[str], features: tuple[str, ...], matrix: Any) -> PredictionBatch:
    """Rows of a model with named columns that are all numbers."""
    return PredictionBatch(
        ids=ids,
        time_us=microseconds(NOON),
        version="1",
        features=features,
        matrix=matrix,
        tensor=False,
        predictions=["yes"] * len(ids),
        latency_us=120,
    )


def everything(folder: Path) -> bytes:
    """All bytes of all files, of the spool too."""
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def write(folder: Path, recording: Recording, *batches: Any) -> None:
    writer = open_writer(folder, recording=recording)
    for batch in batches:
        writer.append(batch)
    assert SECRET.encode() not in everything(folder)
    writer.close()
    assert SECRET.encode() not in everything(folder)


def test_redacted_columns_are_never_written(tmp_path: Path) -> None:
    """Of columns of any kind, with the others as they were."""
    columns: Columns = {"name": [SECRET, None], "age": [7, 8], "shop": ["A", "B"]}
    write(
        tmp_path,
        Recording(redact=frozenset({"name", "age"})),
        column_rows(["a", "b"], columns),
        column_rows(
            ["c"], {"name": ["x"], "age": [1], "shop": ["C"]}, categories=frozenset({"shop"})
        ),
    )
    found = rows_of(tmp_path)
    assert [row["input_shop"] for row in found[:2]] == ["A", "B"]
    assert not {"input_name", "input_age"} & found[0].keys()


def test_redacted_columns_of_a_matrix_are_never_written(tmp_path: Path) -> None:
    """Named columns lose theirs; a tensor keeps its shape, with NaN in their places."""
    matrix = np.array([[1.5, 2.5], [3.5, 4.5]])
    write(
        tmp_path,
        Recording(redact=frozenset({"v", "p1"})),
        matrix_rows(["a", "b"], ("u", "v"), matrix),
        tensor_rows(["c"]),
    )
    found = rows_of(tmp_path)
    assert [row["input_u"] for row in found] == [1.5, 3.5, None]
    assert "input_v" not in found[0]
    assert found[2]["input"][0] == 0.5
    assert np.isnan(found[2]["input"][1])
    assert found[2]["input"][2] == 2.5


def test_hashed_values_stay_equal_and_are_not_known(tmp_path: Path) -> None:
    """Equal values of a hashed column, and equal keys, have equal hashes under one key."""
    recording = Recording(hash=frozenset({"name", "age", "key"}), hash_key=KEY)
    columns: Columns = {"name": [SECRET, SECRET, None], "age": [7, 7.0, 8], "shop": ["A", "B", "C"]}
    write(
        tmp_path,
        recording,
        column_rows(["a", "b", "c"], columns, keys=[SECRET, "other", None]),
        matrix_rows(["d"], ("age",), np.array([[7.0]])),
    )
    a, b, c, d = rows_of(tmp_path)
    assert a["input_name"] == b["input_name"] == keyed_hash(SECRET, KEY)
    assert c["input_name"] is None
    assert a["input_age"] == b["input_age"] == d["input_age"] != c["input_age"]
    assert a["key"] == a["input_name"]
    assert b["key"] == keyed_hash("other", KEY)
    assert c["key"] is None
    assert [row["input_shop"] for row in (a, b, c)] == ["A", "B", "C"]


def test_hash_is_keyed_and_that_of_canonical_text() -> None:
    """Who has the key can find a value's rows; who has another cannot."""
    expected = hashlib.blake2b(b"3", key=KEY, digest_size=16).hexdigest()
    assert keyed_hash(3, KEY) == keyed_hash("3", KEY) == keyed_hash(3.0, KEY) == expected
    assert keyed_hash(3, b"another") != expected
    assert keyed_hash("3", KEY * 9) != keyed_hash("3", KEY * 8)
    assert keyed_hash(None, KEY) is None
    assert keyed_hash(float("nan"), KEY) is None


def test_hashing_without_a_key_is_refused() -> None:
    """A hash that anybody can make hides nothing that can be guessed."""
    with pytest.raises(ValueError, match="need a key"):
        Recording(hash=frozenset({"name"}))


def test_inputs_may_be_left_out(tmp_path: Path) -> None:
    """With inputs "none" there is no trace of them; all else is there."""
    write(
        tmp_path,
        Recording(inputs="none"),
        tensor_rows(["a"]),
        column_rows(["b"], {"name": [SECRET]}),
    )
    for row in rows_of(tmp_path):
        assert row["descriptors"] is None
        assert row["prediction"] in ("7", "yes")
        assert not [name for name in row if name.startswith("input")]


def test_inputs_may_be_reduced_to_descriptors(tmp_path: Path) -> None:
    """Six numbers a row, of its numbers; texts count only where they are missing."""
    columns: Columns = {"x": [1.0, None], "y": [3, 0], "name": [SECRET, None], "hidden": [9.0, 9.0]}
    write(
        tmp_path,
        Recording(inputs="descriptors", redact=frozenset({"hidden"})),
        column_rows(["a", "b"], columns),
        tensor_rows(["c"], matrix=np.array([[0.0, 0.0, 3.0]])),
    )
    a, b, c = rows_of(tmp_path)
    assert a["descriptors"] == [2.0, 1.0, 1.0, 3.0, 0.0, 0.0]
    assert b["descriptors"] == pytest.approx([0.0, 0.0, 0.0, 0.0, 1.0, 2 / 3])
    assert c["descriptors"] == pytest.approx([1.0, 2**0.5, 0.0, 3.0, 2 / 3, 0.0])
    assert not [name for name in a if name.startswith("input")]


numbers = arrays.arrays(
    np.float64,
    st.tuples(st.integers(0, 6), st.integers(0, 7)),
    elements=st.one_of(st.just(0.0), st.just(float("nan")), st.floats(-1e3, 1e3, width=32)),
)


@given(matrix=numbers)
def test_descriptors_are_what_their_names_say(matrix: np.ndarray[Any, Any]) -> None:
    """Row for row, against the plain definition; NaN where a row has nothing to tell."""
    found = describe(matrix)
    assert found.shape == (len(matrix), len(DESCRIPTORS))
    assert found.dtype == np.float32
    for row, got in zip(matrix, found, strict=True):
        there = row[~np.isnan(row)]
        expected = [np.nan] * 6
        if len(there):
            zeros = float((there == 0).mean())
            expected[:5] = [there.mean(), there.std(), there.min(), there.max(), zeros]
        if len(row):
            expected[5] = 1 - len(there) / len(row)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


def test_kinds_of_columns_are_those_of_the_signature(tmp_path: Path) -> None:
    """A feature that is named a category is text, whatever its values look like; others are
    numbers, also where a batch has only nulls; and text for a number is refused."""
    code = frozenset({"code"})
    writer = open_writer(tmp_path)
    writer.append(column_rows(["a"], {"code": [7], "x": [None]}, categories=code))
    writer.append(column_rows(["b"], {"code": [None], "x": [2]}, categories=code))
    with pytest.raises(InputError, match="cannot be logged"):
        writer.append(column_rows(["c"], {"code": ["7"], "x": ["tall"]}, categories=code))
    writer.close()
    a, b = rows_of(tmp_path)
    assert (a["input_code"], a["input_x"]) == ("7", None)
    assert (b["input_code"], b["input_x"]) == (None, 2.0)


def test_key_and_cached_come_with_the_row(tmp_path: Path) -> None:
    """The caller's own key, null where none was given, and whether an answer was remembered."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a", "b"], keys=["user-1", None]))
    writer.append(tensor_rows(["c"], cached=True))
    writer.close()
    assert [(row["key"], row["cached"]) for row in rows_of(tmp_path)] == [
        ("user-1", False),
        (None, False),
        (None, True),
    ]


def test_a_redacted_key_is_never_written(tmp_path: Path) -> None:
    """Whose row it is stays with the caller."""
    rows = msgspec.structs.replace(column_rows(["a", "b"], {"age": [7, 8]}), keys=[SECRET, None])
    write(tmp_path, Recording(redact=frozenset({"key"})), rows)
    assert [row["key"] for row in rows_of(tmp_path)] == [None, None]
    assert [row["input_age"] for row in rows_of(tmp_path)] == [7, 8]


def test_rows_tell_under_which_settings_they_were_written(tmp_path: Path) -> None:
    """Null for whole rows; else one text for one set of settings, whatever their order, and
    `sample` is not one of them: it is in the weight."""
    hidden = Recording(redact=frozenset({"b", "a"}), hash=frozenset({"key"}), hash_key=KEY)
    settings = {
        "whole": Recording(),
        "sampled": Recording(sample=0.999999),
        "few": Recording(inputs="descriptors"),
        "none": replace(hidden, inputs="none"),
        "hidden": hidden,
    }
    for name, recording in settings.items():
        write(tmp_path, recording, tensor_rows([name], keys=["user-1"]))
    assert {row["prediction_id"]: row["recorded"] for row in rows_of(tmp_path)} == {
        "whole": None,
        "sampled": None,
        "few": '{"inputs":"descriptors"}',
        "none": '{"inputs":"none","redact":["a","b"],"hash":["key"]}',
        "hidden": '{"redact":["a","b"],"hash":["key"]}',
    }


def test_a_table_of_before_gets_the_column_when_rows_need_it(tmp_path: Path) -> None:
    """Rows that are there are null in it, as whole rows are."""
    table = tables.predictions(str(tmp_path / "journal"), "digits", Task.CLASSIFICATION)
    before = table.schema.remove(table.schema.get_field_index("recorded"))
    made = tables.open_or_create(replace(table, schema=before))
    assert "recorded" not in [field.name for field in made.schema().fields]
    for name, recording in (("old", Recording()), ("new", Recording(inputs="none"))):
        writer = open_writer(tmp_path, recording=recording)
        writer.append(tensor_rows([name]))
        writer.close()
    assert [(row["prediction_id"], row["recorded"]) for row in rows_of(tmp_path)] == [
        ("new", '{"inputs":"none"}'),
        ("old", None),
    ]
