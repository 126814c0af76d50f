"""A version whose rows would not fit the log is told before it serves."""

from __future__ import annotations

from pathlib import Path

from journal_kit import EVER, PIXELS, column_rows, ids_of, open_journal, open_writer, tensor_rows

from homeostat.journal.encoding.recording import Recording
from homeostat.records import Feature, FeatureKind, ModelSpec, Task
from homeostat.settings_of_serving import JournalSettings


def version(number: str, **kinds: FeatureKind) -> ModelSpec:
    return ModelSpec(
        model="digits",
        version=number,
        runtime="pyfunc",
        task=Task.CLASSIFICATION,
        features=tuple(Feature(name=name, kind=kind) for name, kind in kinds.items()),
    )


NUMBER, CATEGORY = FeatureKind.NUMBER, FeatureKind.CATEGORY


def test_one_more_feature_is_accepted_and_appended(tmp_path: Path) -> None:
    """What is new gets a column, old rows read null there; fewer features fit as well."""
    journal = open_journal(tmp_path)
    assert journal.accepts(version("1", size=NUMBER)) is None
    writer = open_writer(tmp_path)
    writer.append(column_rows(["a"], {"size": [1.0]}))
    writer.flush()
    assert journal.accepts(version("2", size=NUMBER, shop=CATEGORY)) is None
    writer.append(column_rows(["b"], {"size": [2.0], "shop": ["Bonn"]}, version="2"))
    writer.close()
    assert journal.accepts(version("3", shop=CATEGORY)) is None
    assert journal.window(*EVER, ["size", "shop"])["shop"].to_pylist() == [None, "Bonn"]


def test_another_kind_of_value_is_refused_with_the_columns_and_a_way_out(tmp_path: Path) -> None:
    """Text where the log has numbers, numbers where it has text, another task's predictions."""
    writer = open_writer(tmp_path)
    writer.append(column_rows(["a"], {"size": [1.0], "shop": ["Bonn"]}))
    writer.close()
    journal = open_journal(tmp_path)
    said = journal.accepts(version("7", size=CATEGORY, shop=NUMBER)) or ""
    assert "version 7" in said
    assert "input_size: numbers in the log, text in the version" in said
    assert "input_shop: text in the log, numbers in the version" in said
    assert "other names" in said
    other = open_journal(tmp_path, Task.REGRESSION)
    spec = ModelSpec(model="d", version="8", runtime="x", task=Task.REGRESSION, features=())
    assert "prediction: text in the log" in (other.accepts(spec) or "")


def test_what_is_not_logged_cannot_misfit(tmp_path: Path) -> None:
    """Redacted columns and unlogged inputs ask for nothing; a hash is text, whatever was hashed."""
    writer = open_writer(tmp_path)
    writer.append(column_rows(["a"], {"size": [1.0]}))
    writer.close()
    journal = open_journal(tmp_path)
    spec = version("2", size=CATEGORY)
    assert journal.accepts(spec) is not None
    assert journal.accepts(spec, JournalSettings(redact=("size",))) is None
    assert journal.accepts(spec, JournalSettings(inputs="none")) is None
    hashing = JournalSettings(hash=("size",))
    said = journal.accepts(version("3", size=NUMBER), hashing) or ""
    assert "take size out of [journal] hash" in said


def test_what_was_hashed_is_not_logged_in_the_clear(tmp_path: Path) -> None:
    """Who no longer hashes a number has a log of text: told, with what to do."""
    writer = open_writer(
        tmp_path, recording=Recording(hash=frozenset(["size"]), hash_key=b"a key of some length")
    )
    writer.append(column_rows(["a"], {"size": [1.0]}))
    writer.close()
    journal = open_journal(tmp_path)
    assert journal.accepts(version("1", size=NUMBER), JournalSettings(hash=("size",))) is None
    said = journal.accepts(version("1", size=NUMBER)) or ""
    assert "input_size: text in the log, numbers in the version" in said
    assert "put size back into [journal] hash" in said


def test_tensor_and_named_columns_share_a_table(tmp_path: Path) -> None:
    """A version that takes a tensor and one that takes columns are logged side by side."""
    writer = open_writer(tmp_path)
    writer.append(column_rows(["a"], {"p0": [5.0]}))
    spec = ModelSpec(
        model="digits",
        version="2",
        runtime="torch",
        task=Task.CLASSIFICATION,
        features=tuple(Feature(name=name) for name in PIXELS),
        tensor_shape=(3,),
    )
    writer.flush()
    assert open_journal(tmp_path).accepts(spec) is None
    writer.append(tensor_rows(["b"]))
    writer.close()
    window = open_journal(tmp_path).window(*EVER, PIXELS)
    assert ids_of(window) == ["a", "b"]
    assert window["p0"].to_pylist() == [5.0, 0.5]
    assert window["p1"].to_pylist() == [None, 1.5]
