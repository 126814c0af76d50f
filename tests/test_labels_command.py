"""`homeostat labels ledger | pending`, and labels that are feedback or outcomes, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import project_kit as kit
import pytest
import serving_kit
from journal_kit import SteppingClock, label, open_writer, tensor_rows

from homeostat.client import Client
from homeostat.errors import InputError
from homeostat.journal.reader import Journal
from homeostat.records import Task
from homeostat.settings import Settings
from serving.requests.labels import read_labels


@pytest.fixture(scope="module")
def now() -> datetime:
    """Not when the tests were collected: that may be long ago."""
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, now: datetime) -> Path:
    """Four days of ten rows, labelled within an hour; today's rows are not; one label is alone."""
    folder = tmp_path_factory.mktemp("ledger")
    settings = 'home = "."\n[model]\nname = "digits"\n[monitor]\nlabel_delay = "30m"\n'
    (folder / "homeostat.toml").write_text(settings)
    clock = SteppingClock(now - timedelta(days=5))
    writer = open_writer(folder, clock=clock)
    for days in (4, 3, 2, 0):
        time = now - timedelta(days=days, minutes=5)
        ids = [f"{days}-{number}" for number in range(10)]
        writer.append(tensor_rows(ids, time))
        if days:
            later = time + timedelta(hours=1)
            clock.now = later - timedelta(minutes=1)  # they arrive when they are known
            writer.label([label(each, "7", later) for each in ids[: 10 - days]])
    clock.now = now - timedelta(minutes=1)
    writer.label([label("alone", "7", now)])
    writer.close()
    return folder


def test_the_ledger_is_shown(project: Path) -> None:
    """A line a day with its share, the delays in words, and what the settings should say."""
    done = kit.homeostat(project, "labels", "ledger")
    assert done.returncode == 0, done.stderr
    assert "80%" in done.stdout
    assert "60%" in done.stdout
    assert "█" in done.stdout
    assert "90% of the labels that ever come are there after 1h" in " ".join(done.stdout.split())
    assert "set it to 1h or more" in " ".join(done.stdout.split())
    found = json.loads(kit.homeostat(project, "labels", "ledger", "--json").stdout)
    assert (found["rows"], found["labelled"]) == (40, 21)


def test_what_waits_is_counted(project: Path) -> None:
    """By the stated delay; and labels whose prediction is not there."""
    found = json.loads(kit.homeostat(project, "labels", "pending", "--json").stdout)
    assert found == {"matured": 21, "pending": 10, "never": 9, "without_prediction": 1}
    shown = kit.homeostat(project, "labels", "pending").stdout
    assert "labels without a prediction (yet): 1" in shown


def test_rows_in_quarantine_wait_for_nothing(project: Path, now: datetime) -> None:
    """They are not used, whatever their labels; how late labels come, they show like others."""
    journal = Journal(str(project / "journal"), "digits", Task.CLASSIFICATION)
    journal.quarantine(["4-0", "4-9", "0-0"], "bug", key="k", now=now)
    try:
        found = json.loads(kit.homeostat(project, "labels", "pending", "--json").stdout)
        assert found == {"matured": 20, "pending": 9, "never": 8, "without_prediction": 1}
        ledger = json.loads(kit.homeostat(project, "labels", "ledger", "--json").stdout)
        assert (ledger["rows"], ledger["labelled"]) == (40, 21)
    finally:
        journal.release("k", now=now)


def test_a_log_without_labels_says_so(tmp_path: Path, now: datetime) -> None:
    """Nothing to estimate from."""
    (tmp_path / "homeostat.toml").write_text('home = "."\n[model]\nname = "digits"\n')
    assert "No predictions" in kit.homeostat(tmp_path, "labels", "ledger").stdout
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a"], now))
    writer.close()
    assert 'No label "label" came yet' in kit.homeostat(tmp_path, "labels", "ledger").stdout


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = serving_kit.make_project(tmp_path_factory.mktemp("feedback") / "project")
    serving_kit.publish(settings, serving_kit.add_version(settings, 1, runtime="onnx"), epoch=1)
    return settings


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[Client]:
    with serving_kit.running(settings.project) as server, Client(server.url) as client:
        yield client


def test_feedback_and_outcomes_reach_the_log(client: Client, settings: Settings) -> None:
    """A thumb, a corrected answer and revenue, each under its name with its source; what the
    prediction is compared with is the label alone."""
    made = client.predict([[1.0, 2.0, 3.0, 4.0]]).ids[0]
    client.label(made, True, name="thumbs", source="app")
    client.label(made, "a pentagon, I think", name="correction", source="user 7")
    client.label(made, 12.5, name="revenue", source="billing")
    client.label(made, "star")
    client.flush()
    journal = Journal(settings.journal_path, settings.model.name, Task.CLASSIFICATION)
    hour = timedelta(hours=1)
    now = datetime.now(UTC)
    found = {
        name: journal.outcomes(name, now - hour, now + hour).to_pylist()[0]
        for name in ("thumbs", "correction", "revenue")
    }
    assert found["thumbs"]["_label"] == "true"
    assert found["thumbs"]["_source"] == "app"
    assert found["correction"]["_label"] == "a pentagon, I think"
    assert found["revenue"]["_number"] == 12.5
    row = journal.window(now - hour, now + hour, serving_kit.FEATURES).to_pylist()[0]
    assert row["_label"] == "star"


def test_words_for_a_regression_are_labels_of_another_name(now: datetime) -> None:
    """What is compared with its predictions stays a number."""
    body = b'{"labels": [{"id": "a", "value": "too low", "name": "comment"}]}'
    assert read_labels(body, Task.REGRESSION, now)[0].value == "too low"
    with pytest.raises(InputError) as refused:
        read_labels(b'{"labels": [{"id": "a", "value": "too low"}]}', Task.REGRESSION, now)
    assert refused.value.field == "value"


@pytest.mark.parametrize("value", ["nan", "-Infinity", "1e999"])
def test_an_outcome_that_is_no_number_is_refused(value: str, now: datetime) -> None:
    """It would count as a number among outcomes, and spoil every sum of them."""
    entry = {"id": "a", "value": value, "name": "revenue"}
    with pytest.raises(InputError, match="would be read as a number, and is none") as refused:
        read_labels(json.dumps({"labels": [entry]}).encode(), Task.CLASSIFICATION, now)
    assert (refused.value.row, refused.value.field) == (0, "value")
    entry["name"] = "label"  # a class may be called so
    assert read_labels(json.dumps({"labels": [entry]}).encode(), Task.CLASSIFICATION, now)
