"""`homeostat journal` as a person types it, on a log as servers leave it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import project_kit as kit
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from journal_kit import Columns, SteppingClock, column_rows, label, open_writer, tensor_rows
from test_journal_forget import told_of

from homeostat.errors import Conflict
from homeostat.journal.encoding.recording import Recording
from homeostat.journal.forgetting import traces
from homeostat.records import Action, Decision, Run, Stage, Verdict, VerdictKind, VersionRef, Window
from homeostat.settings import Settings, load
from homeostat.state import checks, runs
from homeostat.state.store import open_state
from loop.cli import cli

YESTERDAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(1)
DAY = YESTERDAY.date().isoformat()
SECRET, OTHER = "person-4711-secret", "person-0815-other"
HASH_KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return kit.make_project(tmp_path / "cancer")


def fill(project: Path, *, recording: Recording | None = None, noon: datetime = YESTERDAY) -> None:
    """Ten commits of two people's rows, yesterday at noon."""
    home = project / ".homeostat"
    writer = open_writer(
        home, model="cancer", clock=SteppingClock(noon), recording=recording or Recording()
    )
    for number in range(10):
        ids = [f"secret-row-{number}", f"other-row-{number}"]
        time = noon + timedelta(seconds=number)
        columns: Columns = {"a": [float(number), 1.0], "b": ["x", "y"]}
        writer.append(
            column_rows(
                ids,
                columns,
                time,
                keys=[SECRET, OTHER],
                predictions=["1", "0"],
                probabilities=None,
            )
        )
        writer.label([label(each, "1", time) for each in ids])
        writer.flush()
    writer.close()


def run(project: Path, *arguments: str, exits: int = 0, answer: str = "", **env: str) -> str:
    """What the command prints, in this process: each of its own takes a second to start."""
    given = ["--project", str(project), "journal", *arguments]
    done = CliRunner().invoke(cli, given, input=answer, env=env, catch_exceptions=False)
    assert done.exit_code == exits, done.output
    return done.output


def test_the_size_of_the_log_is_told_to_people_and_programs(project: Path) -> None:
    """Rows, files, days, labels, and who writes; upkeep by hand makes it small."""
    empty = json.loads(run(project, "stats", "--json"))
    assert (empty["rows"], empty["days"], empty["oldest"]) == (0, [], None)
    fill(project)
    told = json.loads(run(project, "stats", "--json"))
    assert (told["rows"], told["files"], told["labels"]) == (20, 10, 20)
    assert [day["day"] for day in told["days"]] == [DAY]
    assert [each["writer"] for each in told["writers"]] == ["server-1"]
    assert told["writers"][0]["last_commit"] > DAY
    assert told["oldest"] < told["newest"]
    assert "predictions: 10 files became 1" in run(project, "compact")
    assert "predictions: 10 files would go" in run(
        project, "vacuum", "--dry-run", "--replaced-for", "0s"
    )
    assert "predictions: 0 files went" in run(project, "vacuum")
    assert "predictions: 10 files went" in run(project, "vacuum", "--replaced-for", "0s")
    shown = run(project, "stats")
    assert "20 rows in 1 files" in shown
    assert DAY in shown
    assert "server-1" in shown


def test_the_size_is_told_from_the_tables_logs_alone(project: Path) -> None:
    """It takes no longer for more rows or labels: not one of their files is opened."""
    fill(project)
    for name in ("predictions", "labels"):
        for file in (project / ".homeostat/journal/cancer" / name).rglob("date=*/*.parquet"):
            file.write_bytes(b"")
    told = json.loads(run(project, "stats", "--json"))
    assert (told["rows"], told["labels"]) == (20, 20)
    assert "homeostat labels pending" in run(project, "stats")


def test_old_days_are_named_before_they_go(project: Path) -> None:
    """`vacuum --dry-run` says which; the same without it deletes them, all only with `--yes`."""
    fill(project)
    keep = partial(run, HOMEOSTAT_JOURNAL_KEEP="10s", HOMEOSTAT_MONITOR_WINDOW="5s")
    vacuum = partial(keep, project, "vacuum")
    line = f"1 days {{}} ({DAY} to {DAY}): 20 rows"
    assert line.format("would go") in vacuum("--dry-run")
    assert json.loads(run(project, "stats", "--json"))["rows"] == 20
    with pytest.raises(Conflict, match="the clock may run ahead"):
        vacuum()
    assert json.loads(run(project, "stats", "--json"))["rows"] == 20
    assert line.format("went") in vacuum("--yes")
    assert json.loads(run(project, "stats", "--json"))["rows"] == 0


def test_a_window_is_exported_to_each_format(project: Path) -> None:
    """The same rows with their labels; an empty window has the same columns and no rows."""
    fill(project)
    span = ("--from", f"{DAY}T12:00:05", "--to", f"{DAY}T12:00:09Z")
    for name in ("rows.parquet", "rows.csv", "rows.jsonl"):
        assert "8 rows" in run(project, "export", str(project / name), *span, "--embedding")
    whole = pq.read_table(project / "rows.parquet")
    assert whole.num_rows == 8
    assert set(whole["_label"].to_pylist()) == {"1"}
    assert whole["a"].to_pylist()[::2] == [5.0, 6.0, 7.0, 8.0]
    table = pacsv.read_csv(project / "rows.csv")
    assert table.column_names == whole.column_names
    assert table["_prediction_id"].to_pylist() == whole["_prediction_id"].to_pylist()
    lines = [json.loads(line) for line in (project / "rows.jsonl").read_text().splitlines()]
    assert [line["_key"] for line in lines] == whole["_key"].to_pylist()
    run(project, "export", str(project / "none.parquet"), "--from", "1s")
    none = pq.read_table(project / "none.parquet")
    assert (none.num_rows, none.column_names[:2]) == (0, ["a", "b"])
    assert [path.name for path in project.glob(".*.part")] == []


def test_rows_that_are_not_exported_are_counted(project: Path) -> None:
    """A file has one set of columns: rows of a tensor with another width are told. What was hidden
    is no reason, it is exported as it lies there."""
    hiding = Recording(redact=frozenset(["p0"]))
    writer = open_writer(project / ".homeostat", model="cancer", recording=hiding)
    writer.append(tensor_rows(["a", "b"], YESTERDAY, matrix=np.ones((2, 4), np.float32)))
    writer.flush()
    writer.append(tensor_rows(["c"], YESTERDAY + timedelta(seconds=1)))
    writer.close()
    said = run(project, "export", str(project / "rows.jsonl"), "--from", "3d")
    assert "1 rows" in said
    assert "2 rows of tensors with another number of elements are left out" in said


def test_a_mistake_is_told(project: Path) -> None:
    """What is wrong and what is allowed, with a status that says so."""
    assert "how long ago" in run(project, "export", "rows.csv", "--from", "soon", exits=2)
    assert "a duration such as" in run(project, "vacuum", "--replaced-for", "long", exits=2)
    for arguments, told in (
        (["export", "rows.xlsx"], "ending in .parquet, .csv, .jsonl"),
        (["forget", "--yes"], "name what to forget"),
    ):
        done = kit.homeostat(project, "journal", *arguments)
        assert done.returncode == 1
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def test_the_newest_rows_are_shown_as_they_come(project: Path) -> None:
    """First the last ones, then each commit; Ctrl-C ends it."""
    fill(project)
    assert run(project, "tail", "-n", "3", "--no-follow").count("\n") == 3
    command = [sys.executable, "-P", "-m", "loop", "--project", str(project), "journal", "tail"]
    process = subprocess.Popen(
        [*command, "-n", "1", "--json"], stdout=subprocess.PIPE, env=dict(kit.environ())
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first["_prediction_id"].endswith("row-9")
    writer = open_writer(project / ".homeostat", model="cancer", writer_id="server-2")
    writer.append(column_rows(["new"], {"a": [2.0], "b": ["z"]}, datetime.now(UTC), keys=[OTHER]))
    writer.close()
    second = json.loads(process.stdout.readline())
    assert (second["_prediction_id"], second["b"], second["_key"]) == ("new", "z", OTHER)
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(30) == 0


def leave_traces(settings: Settings) -> None:
    """A run with a training set made of logged rows, its job's leavings, and three reports."""
    run_folder = settings.runs_path / "run-1"
    job_folder = settings.jobs_path / "run-1-train-1"
    for folder in (run_folder, job_folder):
        folder.mkdir(parents=True)
    (job_folder / "copy.csv").write_text("secret-row-3,1\n")
    train = run_folder / "train.parquet"
    table = pq.read_table(settings.project / "data" / "train.parquet").slice(0, 3)
    traces.write_traced(train, table, [None, "secret-row-3", "other-row-3"], [None, SECRET, OTHER])
    for name in ("during", "before", "unknown"):
        (settings.reports_path / name).mkdir(parents=True)
        (settings.reports_path / name / "report.html").write_text("plots")
    now = YESTERDAY
    state = open_state(settings.state_url)
    with state.begin() as tx:
        decision = Decision(
            decision_id="d", model="cancer", action=Action.RETRAIN, reason="", created_at=now
        )
        runs.decide(tx, decision)
        begun = Run(
            run_id="run-1",
            model="cancer",
            decision_id="d",
            action=Action.RETRAIN,
            stage=Stage.PROMOTING,
            candidate=VersionRef(version="7", digest="x"),
            created_at=now,
            updated_at=now,
        )
        runs.start(tx, begun)
        runs.advance(tx, begun, now, stage=Stage.PROMOTED)
        for name, end in (("during", now + timedelta(minutes=1)), ("before", now)):
            checks.begin(tx, name, "cancer", "1", now)
            window = Window(model="cancer", start=now - timedelta(hours=1), end=end)
            verdict = Verdict(
                check_id=name,
                window=window,
                version="1",
                kind=VerdictKind.OK,
                reason="",
                rows=1,
                labelled=0,
            )
            checks.finish(tx, verdict, now)
    state.close()


def test_a_person_is_forgotten_in_all_that_was_kept(project: Path) -> None:
    """The log, hashed or not, training sets, reports whose window held such a row, what programs
    left; and what cannot be reached is said."""
    fill(project)
    hashing = Recording(hash=frozenset(["key"]), hash_key=HASH_KEY.encode())
    fill(project, recording=hashing)
    with (project / "homeostat.toml").open("r+") as file:
        text = file.read().replace(
            "[journal]", '[journal]\nhash = ["key"]\nhash_key_env = "LOG_KEY"'
        )
        file.seek(0)
        file.write(text)
    settings = load(project, {})
    leave_traces(settings)
    shown = run(project, "forget", "--key", SECRET, "--yes", LOG_KEY=HASH_KEY)
    assert "predictions: 20 rows" in shown
    assert "labels: 20 rows" in shown
    assert "runs/run-1/train.parquet: 1 rows" in shown
    assert "Versions 7 were trained on such rows" in shown
    assert "Not reached: backups" in shown
    home = settings.home
    for text in (SECRET, "secret-row-"):
        assert told_of(home, text) == []
    assert told_of(home, OTHER)
    assert pq.read_metadata(settings.runs_path / "run-1/train.parquet").num_rows == 2
    assert not (settings.jobs_path / "run-1-train-1").exists()
    assert sorted(path.name for path in settings.reports_path.iterdir()) == ["before"]
    assert json.loads(run(project, "stats", "--json"))["rows"] == 20


def test_forgetting_asks_first_and_says_what_still_tells(project: Path) -> None:
    """Without a yes nothing goes; a log file that names the row is left to a person."""
    fill(project)
    logs = project / ".homeostat" / "logs"
    logs.mkdir()
    (logs / "server.log").write_text("secret-row-1 was odd\n")
    asked = run(project, "forget", "secret-row-1", exits=1, answer="n\n")
    assert "1 of 1 predictions are in the log's files" in asked
    assert json.loads(run(project, "stats", "--json"))["rows"] == 20
    told = run(project, "forget", "secret-row-1", exits=1, answer="y\n")
    assert "server.log still holds" in told
    assert json.loads(run(project, "stats", "--json"))["rows"] == 19
    assert told_of(project / ".homeostat", "secret-row-1") == [logs / "server.log"]
