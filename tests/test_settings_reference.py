"""The reference pages say what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from homeostat.metrics import METRICS
from homeostat.reference_docs import main, metrics_page, pages, settings_page
from homeostat.settings import Settings
from homeostat.settings_reader import hints

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", pages())
def test_the_committed_page_is_up_to_date(name: str) -> None:
    """Otherwise run `python -m homeostat.reference_docs docs`."""
    assert (ROOT / "docs" / name).read_text() == pages()[name]


def test_the_check_fails_on_an_old_page(tmp_path: Path) -> None:
    """And passes once both are written."""
    command = [sys.executable, "-m", "homeostat.reference_docs", "--check", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "settings.md is out of date" in done.stderr
    assert main([str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    (tmp_path / "metrics.md").write_text("old")
    assert main(["--check", str(tmp_path)]) == 1


def test_every_section_and_metric_has_its_line() -> None:
    """Nothing declared is left out; what is no key stays out."""
    page = settings_page()
    for name in hints(Settings):
        shown = f"`{name}`" in page or f"[{name}]" in page
        assert (name, shown) == (name, name != "project")
    assert [m.name for m in METRICS if f"| `{m.name}` |" not in metrics_page()] == []
