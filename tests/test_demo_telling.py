"""How the demo tells what happened: every figure is whole, however narrow the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from loop.demo.acts import Act
from loop.demo.telling import closing_table

ACT = Act(
    number=1,
    title="The camera ages",
    story="",
    seconds=104.2,
    as_told=True,
    accuracy_before=1.0,
    accuracy_during=0.61,
    accuracy_after=1.0,
    checks=12,
    verdicts={"no_drift": 9, "concept_drift": 3},
    version_before="9",
    version_after="10",
    gate="pass",
    requests=123_456,
)


def test_no_figure_of_the_closing_table_is_cut() -> None:
    """A file or a pipe is taken for 80 columns wide."""
    out = io.StringIO()
    Console(file=out, width=80).print(closing_table([ACT]))
    for whole in ("0 of 123456", "100%→61%→100%", "9→10", "104 s", "1. The camera ages"):
        assert whole in out.getvalue()
