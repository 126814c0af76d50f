"""A pyfunc model of columns without an example is tried on made-up rows before it is ready."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from typed_kit import MODEL, add_typed, typed_project

from homeostat.errors import ModelError
from homeostat.model_runtime.contract import Batch, LoadedModel
from homeostat.model_runtime.loading import load
from homeostat.registry.cache import entry_path, read_spec

ROW = Batch(1, columns={"count": [1], "sure": ["true"], "width": [0.5]})


def started(folder: Path, first: str) -> LoadedModel:
    settings = typed_project(folder)
    add_typed(settings, "1", first)
    entry = entry_path(settings.cache_path, MODEL, "1")
    return load(entry, read_spec(entry), embedding=None, classes=(), threads=1)


def test_what_a_model_answers_wrongly_is_found_at_load(tmp_path: Path) -> None:
    """Not by the first caller."""
    with pytest.raises(ModelError, match="gives 1 outputs for 8 rows"):
        started(tmp_path, 'return np.array(["yes"])')


def test_a_model_that_takes_no_made_up_rows_is_ready(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They may be none of its own; the log says that it is not warm, and why."""
    with caplog.at_level(logging.WARNING):
        model = started(tmp_path, "assert (model_input['width'] > 0).all(), 'no width at all'")
    try:
        assert "version 1 of typed is ready without a warm-up" in caplog.text
        assert "AssertionError: no width at all" in caplog.text
        assert model.predict(ROW).predictions == ["yes"]
    finally:
        model.close()


def test_a_model_that_takes_them_is_ready_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has answered before anybody asked."""
    (tmp_path / "asked").touch()
    with caplog.at_level(logging.WARNING):
        model = started(tmp_path, f"open({str(tmp_path / 'asked')!r}, 'a').write('asked ')")
    try:
        assert not caplog.text
        assert (tmp_path / "asked").read_text() == "asked "
        assert model.predict(ROW).predictions == ["yes"]
    finally:
        model.close()
