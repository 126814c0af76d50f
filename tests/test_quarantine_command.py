"""`homeostat journal quarantine`: what a person puts aside, and takes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from journal_kit import EVER, PIXELS, at, ids_of, open_journal, open_writer, tensor_rows

from homeostat.errors import InputError
from loop.cli import cli


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """One row a second, of two versions in turn."""
    (tmp_path / "homeostat.toml").write_text('home = "."\n[model]\nname = "digits"\n')
    writer = open_writer(tmp_path)
    for second in range(6):
        writer.append(tensor_rows([f"row-{second}"], at(second), version=str(1 + second % 2)))
    writer.close()
    return tmp_path


def run(project: Path, *arguments: str, answer: str = "") -> str:
    given = ["--project", str(project), "journal", "quarantine", *arguments]
    done = CliRunner().invoke(cli, given, input=answer, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def left(project: Path) -> list[str]:
    return [
        each.removeprefix("row-") for each in ids_of(open_journal(project).window(*EVER, PIXELS))
    ]


def test_ids_are_put_aside_and_released(project: Path) -> None:
    """Readers leave them out at once; who looks sees why, and by which key they come back."""
    assert "Nothing is in quarantine" in run(project, "list")
    given = ("put", "row-1", "--ids-from", "-", "--reason", "a [bad] sensor", "--json")
    told = json.loads(run(project, *given, answer="row-3\n\nrow-1\n"))
    assert told["added"] == 2
    assert left(project) == ["0", "2", "4", "5"]
    (shown,) = json.loads(run(project, "list", "--json"))
    assert (shown["key"], shown["reason"], shown["ids"]) == (told["key"], "a [bad] sensor", 2)
    assert told["key"] in run(project, "list")
    again = ("put", "row-1", "--reason", "again", "--key", told["key"])
    assert "all of that was put aside" in run(project, *again)
    assert json.loads(run(project, "release", told["key"], "--json"))["released"] == 2
    assert left(project) == ["0", "1", "2", "3", "4", "5"]
    assert json.loads(run(project, "list", "--json")) == []


def test_a_range_of_time_is_put_aside_and_released(project: Path) -> None:
    """Of one version, or of all; two decisions over the same rows are released one by one."""
    span = ("--from", at(1).isoformat(), "--to", at(4).isoformat())
    run(project, "put", *span, "--version", "2", "--reason", "unit", "--key", "mine")
    assert left(project) == ["0", "2", "4", "5"]
    told = run(project, "put", *span, "--reason", "outage", "--key", "all")
    assert "homeostat journal quarantine release all" in told
    assert left(project) == ["0", "4", "5"]
    shown = {each["key"]: each["ranges"] for each in json.loads(run(project, "list", "--json"))}
    assert [each["version"] for each in shown["mine"]] == ["2"]
    assert [each["version"] for each in shown["all"]] == [None]
    assert "version 2" in " ".join(run(project, "list").split())
    run(project, "release", "all")
    assert left(project) == ["0", "2", "4", "5"]
    run(project, "release", "mine")
    assert left(project) == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["put", "--reason", "x"], "name what to put aside"),
        (["put", "row-1", "--from", "1h", "--reason", "x"], "name what to put aside"),
        (["put", "row-1", "--version", "2", "--reason", "x"], "name what to put aside"),
        (["put", "--from", "1h", "--to", "2h", "--reason", "x"], "ends after it starts"),
        (["release", "nobody"], "nothing is in quarantine under the key"),
    ],
)
def test_a_mistake_puts_nothing_aside(project: Path, arguments: list[str], told: str) -> None:
    """It is not clear what was meant, so that nothing is done."""
    with pytest.raises(InputError, match=told):
        run(project, *arguments)
    assert len(left(project)) == 6
