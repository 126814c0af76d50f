"""What the log will take, as `homeostat up` and `homeostat journal volume` tell it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import project_kit as kit
import pytest
from journal_kit import column_rows, open_writer
from test_journal_command import fill, run

from homeostat.settings import load
from loop.journal_volume import volume_line


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return kit.make_project(tmp_path / "cancer")


def test_an_embedding_is_part_of_what_the_log_will_take(project: Path) -> None:
    """The first row tells its width, long before there are enough rows to measure."""
    settings = load(project, {})
    now = datetime.now(UTC)

    def estimated() -> float:
        line = volume_line(settings, now)
        assert "(estimated)" in line
        return float(line.split("about ")[1].split(" bytes")[0])

    without = estimated()
    writer = open_writer(project / ".homeostat", model="cancer")
    vector = np.ones((1, 64), np.float32)
    writer.append(column_rows(["a"], {"a": [1.0], "b": ["x"]}, now, embedding=vector))
    writer.close()
    assert estimated() == without + 64 * 4


def test_up_tells_what_the_log_will_take(project: Path) -> None:
    """Measured on the last whole day, else from the rows there are, else estimated from the
    settings: with the sample and the inputs that are logged."""
    settings = load(project, {})
    assert settings.model.training_data is not None

    def estimated(**changes: object) -> float:
        changed = replace(settings, journal=replace(settings.journal, **changes))  # type: ignore[arg-type]
        line = volume_line(changed, datetime.now(UTC))
        assert "estimated" in line
        return float(line.split("about ")[1].split(" bytes")[0])

    assert estimated() > estimated(inputs="descriptors") > estimated(inputs="none")
    embedded = replace(settings, serving=replace(settings.serving, embedding="encoder"))
    told = "4 more for each element of the embedding"
    assert told in volume_line(embedded, datetime.now(UTC))
    assert told not in volume_line(settings, datetime.now(UTC))
    sampled = replace(settings, journal=replace(settings.journal, sample=0.1))
    assert "of which 0.1 are logged" in volume_line(sampled, datetime.now(UTC))
    # not when the tests were collected: that may be the day before
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(1)
    fill(project, noon=noon)
    line = volume_line(settings, datetime.now(UTC))
    assert f"for 20 rows on {noon:%F}" in line
    assert "in 90d" in line
    assert run(project, "volume").strip() == line
    later = volume_line(settings, datetime.now(UTC) + timedelta(days=30))
    assert "estimated" in later
