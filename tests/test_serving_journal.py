"""What of a request reaches the prediction log: its keys, its kinds of columns, its secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable
from object_store_kit import BUCKET, object_store
from serving_kit import FEATURES, MODEL, Server, add_version, make_project, publish, running

from homeostat.client import Client
from homeostat.journal.delta.commits import commit
from homeostat.journal.delta.tables import predictions
from homeostat.journal.reader import Journal
from homeostat.records import Task
from homeostat.settings import Settings

ROW = [1.0, 2.0, 3.0, 4.0]
VARIABLE, SECRET = "SHAPES_HASH_KEY", "0123456789abcdef-not-for-any-log"
HASHED = f'[journal]\nhash = ["key"]\nhash_key_env = "{VARIABLE}"\n'


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Settings]:
    """One that logs keys as they are, one that logs a hash of them."""
    folder = tmp_path_factory.mktemp("journal")
    plain = make_project(folder / "plain")
    hashed = make_project(folder / "hashed", HASHED, model="hashed")
    for project in (plain, hashed):
        publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    return plain, hashed


@pytest.fixture(scope="module")
def server(projects: tuple[Settings, Settings]) -> Iterator[Server]:
    folders = [project.project for project in projects]
    with running(*folders, environ={VARIABLE: SECRET}) as server:
        yield server


def keys_of(server: Server, project: Settings) -> dict[str, str | None]:
    """The stored key of every stored row."""
    name = project.model.name
    assert server.http.post(f"/models/{name}/flush").status_code == 200
    files = DeltaTable(f"{project.journal_path}/{name}/predictions").file_uris()
    return dict(duckdb.execute(f"select prediction_id, key from read_parquet({files})").fetchall())


def test_counters_of_the_journal_begin_at_zero(server: Server) -> None:
    """Before the first row: the first one lost would otherwise be no increase."""
    text = server.http.get("/metrics").text
    for name in (
        "received",
        "recovered",
        "stored",
        "dropped",
        "rejected",
        "sampled_out",
        "errors",
    ):
        assert f'homeostat_journal_{name}_total{{model="{MODEL}"}} 0.0' in text
    assert f'homeostat_journal_memory_bytes{{model="{MODEL}"}}' in text


def test_version_whose_rows_fit_no_table_is_told_at_the_start(tmp_path: Path) -> None:
    """The settings, or the log, changed since it passed its gate: it answers, and the server's log
    says which columns do not fit and what to do."""
    project = make_project(tmp_path)
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    table = predictions(project.journal_path, MODEL, Task.REGRESSION)  # answers that are numbers
    commit(table, table.schema.empty_table(), app_id="earlier", version=1)
    with running(project.project) as server:
        server.wait_for(lambda: "is not logged" in server.log.read_text())
        said = server.log.read_text()
        assert server.predict([ROW]).status_code == 200
    assert "version 1" in said
    assert "prediction: numbers in the log, text in the version" in said
    assert "begin a new log" in said


def test_rows_add_up_over_a_restart(tmp_path: Path) -> None:
    """On /metrics: what a killed server left in its spool is counted by the next one, with what
    that one takes and what it samples out."""
    project = make_project(tmp_path, '[journal]\ncommit_every = "1h"\nsample = 0.5\n')
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    with running(project.project) as server:
        server.predict([ROW] * 20, ids=[f"first-{row}" for row in range(20)])
        at = rows_told(server)
        assert at["received"] == 20 == at["sampled_out"] + at["waiting"]
        left = at["waiting"]
        assert left > 0
    with running(project.project) as server:
        server.predict([ROW] * 20, ids=[f"second-{row}" for row in range(20)])
        server.wait_for(lambda: rows_told(server)["recovered"] == left)
        server.wait_for(lambda: adds_up(rows_told(server)))
        assert server.http.post(f"/models/{MODEL}/flush").status_code == 200
        at = rows_told(server)
        assert (at["received"], at["recovered"], at["waiting"]) == (20, left, 0)
        assert 20 + left == at["stored"] + at["sampled_out"]


def adds_up(rows: dict[str, int]) -> bool:
    out = rows["stored"] + rows["dropped"] + rows["rejected"] + rows["sampled_out"]
    return rows["received"] + rows["recovered"] == out + rows["waiting"]


def rows_told(server: Server) -> dict[str, int]:
    """What /metrics says of rows of the journal."""
    found = {}
    for line in server.http.get("/metrics").text.splitlines():
        name, _, rest = line.partition("{")
        name = name.removeprefix("homeostat_journal_")
        for ending in ("_total", "_rows"):
            if line.startswith("homeostat_journal_") and name.endswith(ending):
                found[name.removesuffix(ending)] = int(float(rest.split()[-1]))
    return found


def test_keys_are_logged_with_their_rows(
    server: Server, projects: tuple[Settings, Settings]
) -> None:
    """Whoever shares a batch, with keys or without."""
    wanted: dict[str, str | None] = {}

    def ask(number: int) -> None:
        ids = [f"{number}-{row}" for row in range(1 + number % 3)]
        keys = [None if row == 1 else f"user-{number % 5}" for row in range(len(ids))]
        given = keys if number % 2 else None
        with Client(server.url, model=MODEL) as client:
            assert client.predict([ROW] * len(ids), ids=ids, keys=given).ids == tuple(ids)
        wanted.update(zip(ids, keys if number % 2 else [None] * len(ids), strict=True))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(60)))
    assert keys_of(server, projects[0]) == wanted


def test_a_hashed_key_is_told_to_nobody(
    server: Server, projects: tuple[Settings, Settings]
) -> None:
    """Equal stays equal, what it was cannot be read, and the secret is in no log."""
    with Client(server.url, model="hashed") as client:
        client.predict([ROW] * 4, ids=list("abcd"), keys=["ada", "bob", "ada", None])
    found = keys_of(server, projects[1])
    assert found["a"] == found["c"] != found["b"]
    assert found["d"] is None
    assert not {"ada", "bob"} & set(found.values())
    assert SECRET not in server.log.read_text()


def test_a_redacted_key_is_not_logged_and_a_misspelt_name_is_told(tmp_path: Path) -> None:
    """Once, in the server's log, with the setting: whoever misspells a name logs in the clear."""
    project = make_project(tmp_path, '[journal]\nredact = ["key", "widht", "height"]\n')
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    with running(project.project) as server, Client(server.url) as client:
        client.predict([ROW] * 2, ids=["a", "b"], keys=["ada", None])
        assert keys_of(server, project) == {"a": None, "b": None}
        (told,) = [line for line in server.log.read_text().splitlines() if " ERROR " in line]
        assert "journal.redact: widht:" in told
        assert "height" not in told
    spool = project.spool_path.rglob("*.arrows")
    assert not any(b"ada" in path.read_bytes() for path in spool)


@pytest.mark.parametrize(
    ("journal", "secret", "says"),
    [
        (HASHED, None, VARIABLE),
        (HASHED, " ", VARIABLE),
        (HASHED, "too-short", "16 to 64 bytes"),
        ('[journal]\nhash = ["key"]\nhash_key_file = "none.txt"\n', SECRET, "none.txt"),
        ('[journal]\npath = "ftp://somewhere"\n', None, "journal.path"),
    ],
)
def test_a_journal_that_cannot_be_is_told_at_the_start(
    tmp_path: Path, journal: str, secret: str | None, says: str
) -> None:
    """One plain line, status 1, and the secret is not in it."""
    make_project(tmp_path, journal)
    environ = {**os.environ, "HOMEOSTAT_SERVING_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "serving", "--project", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environ if secret is None else {**environ, VARIABLE: secret},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "too-short" not in done.stderr
    assert SECRET not in done.stderr


def test_the_tables_may_lie_in_an_object_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by its URL, and reached by the store's own variables."""
    with object_store() as store:
        url = f"s3://{BUCKET}/log"
        project = make_project(tmp_path / "project", f'[journal]\npath = "{url}"\n')
        publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
        with running(project.project, environ=store.environ) as server:
            ids = server.predict([ROW, ROW]).json()["ids"]
            assert server.http.post(f"/models/{MODEL}/flush").json() == {"received": 2, "stored": 2}
        for name, value in store.environ.items():
            monkeypatch.setenv(name, value)
        now, hour = datetime.now(UTC), timedelta(hours=1)
        window = Journal(url, MODEL, Task.CLASSIFICATION).window(now - hour, now + hour, FEATURES)
        assert sorted(window["_prediction_id"].to_pylist()) == sorted(ids)


def test_a_key_file_serves_as_well(tmp_path: Path) -> None:
    """The variable is not the only place for a secret."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.txt").write_text(f"{SECRET}\n")
    project = make_project(
        tmp_path / "project",
        '[journal]\nhash = ["key"]\nhash_key_file = "../secret/key.txt"\n',
    )
    with running(project.project, wait=False) as server:
        assert server.http.get("/health/live").status_code == 200
