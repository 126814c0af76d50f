"""How many rows a key may send, and keys that change while the server runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from serving_kit import Server, add_version, make_project, publish, running

from homeostat.auth import Key, Limit, Scope, add_key, load_keys, new_key
from homeostat.errors import SettingsError
from homeostat.settings import Settings
from serving.requests import limits
from serving.requests.limits import Bucket, Buckets, take
from serving.requests.problem import Refused
from serving.sharing import seats

ROW = [1.0, 2.0, 3.0, 4.0]
PREDICT = frozenset({Scope.PREDICT})
RATES = st.builds(Limit, st.floats(0.1, 1000), st.floats(1, 5000))
STEPS = st.lists(
    st.tuples(st.floats(0, 100), st.integers(1, 3000)), min_size=1, max_size=40
)  # seconds since the one before, and rows


@effort(deadline=None)
@given(RATES, STEPS)
def test_no_more_comes_through_than_the_rate_and_a_burst(
    limit: Limit, steps: list[tuple[float, int]]
) -> None:
    """Over any time; a request larger than the burst is paid off before the next one."""
    bucket, now = Bucket(limit.burst, 0.0), 0.0
    taken: list[tuple[float, int]] = []
    for pause, rows in steps:
        now += pause
        bucket, wait = take(bucket, limit, rows, now)
        if not wait:
            taken.append((now, rows))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            part = taken[first : last + 1]
            before_last = sum(rows for _, rows in part[:-1])
            room = limit.burst + limit.rows_per_second * (part[-1][0] - part[0][0])
            assert before_last + min(part[-1][1], limit.burst) <= room * (1 + 1e-9) + 1e-6


@effort(deadline=None)
@given(RATES, STEPS, st.integers(1, 3000))
def test_the_wait_that_is_told_is_enough_and_no_more(
    limit: Limit, steps: list[tuple[float, int]], rows: int
) -> None:
    """Who waits so long is let through; who comes well before it is not."""
    bucket, now = Bucket(limit.burst, 0.0), 0.0
    for pause, others in steps:
        now += pause
        bucket, _ = take(bucket, limit, others, now)
    _, wait = take(bucket, limit, rows, now)
    assert not take(bucket, limit, rows, now + wait + 1e-6)[1]
    if wait > 0.01:
        assert take(bucket, limit, rows, now + wait * 0.9)[1]


def test_a_clock_that_stands_still_gives_nothing() -> None:
    """Nor does one that goes back."""
    limit = Limit(10, 10)
    bucket, _ = take(Bucket(10, 5.0), limit, 10, 5.0)
    assert take(bucket, limit, 1, 5.0)[1] == pytest.approx(0.1)
    assert take(bucket, limit, 1, 1.0)[1] == pytest.approx(0.1)


def test_workers_share_a_key_s_bucket() -> None:
    """Whichever worker its connections went to, a key gets its rate once."""
    _, key = new_key("shop", PREDICT, Limit(1, 10))
    _, other = new_key("other", PREDICT, Limit(1, 10))
    descriptor = seats.make(limits.SIZE)
    workers = [Buckets(lambda: 7.0, descriptor, seats.SIZE) for _ in range(2)]
    workers[0].charge(key, 6)
    workers[1].charge(key, 4)
    with pytest.raises(Refused, match='"shop" may send 1 rows a second'):
        workers[0].charge(key, 1)
    workers[0].charge(other, 10)
    assert seats.Seats(descriptor).least() == seats.AWAY  # which lies beside it
    os.close(descriptor)


def test_more_keys_than_there_are_buckets_are_still_limited() -> None:
    """Those beyond them share."""
    buckets = Buckets(lambda: 7.0)
    for number in range(limits.MOST + 5):
        key = Key(str(number), f"{number + 1:016x}{'0' * 48}", PREDICT, Limit(1, 5))
        buckets.charge(key, 5)
        with pytest.raises(Refused):
            buckets.charge(key, 1)


def test_a_limit_is_read_back(tmp_path: Path) -> None:
    """As it was added; a wrong one is told."""
    path = tmp_path / "keys.toml"
    for name, limit in (("a", None), ("b", Limit(2.5, 40))):
        add_key(path, new_key(name, PREDICT, limit)[1])
    assert [key.limit for key in load_keys(path).keys] == [None, Limit(2.5, 40)]
    whole = path.read_text()
    for wrong in ("rows_per_second = 0", "rows_per_second = -1", "burst = 5", "burst = 0.5"):
        entry = f'[[keys]]\nname = "c"\nsha256 = "{"0" * 64}"\nscopes = ["predict"]\n{wrong}\n'
        path.write_text(whole + entry)
        with pytest.raises(SettingsError, match="rows_per_second"):
            load_keys(path)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = make_project(tmp_path_factory.mktemp("limits"))
    publish(settings, add_version(settings, 1, runtime="onnx"), epoch=1)
    return settings


@pytest.fixture(scope="module")
def tokens(settings: Settings) -> dict[str, str]:
    made = {}
    for name, limit in (("free", None), ("slow", Limit(0.01, 5)), ("v2", Limit(0.01, 5))):
        made[name], key = new_key(name, PREDICT, limit)
        add_key(settings.keys_path, key)
    return made


@pytest.fixture(scope="module")
def server(settings: Settings, tokens: dict[str, str]) -> Iterator[Server]:
    with running(settings.project) as server:
        yield server


def predict(server: Server, token: str, rows: int) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"}
    return server.http.post("/predict", json={"rows": [ROW] * rows}, headers=headers)


def test_too_many_rows_are_refused_until_it_is_time(server: Server, tokens: dict[str, str]) -> None:
    """429 with Retry-After for that key alone; what was refused costs it nothing."""
    assert predict(server, tokens["slow"], 3).status_code == 200
    for _ in range(2):
        refused = predict(server, tokens["slow"], 3)
        assert refused.status_code == 429
        assert 90 <= int(refused.headers["retry-after"]) <= 100
        assert refused.json()["type"] == "urn:homeostat:problem:too-many-requests"
    assert predict(server, tokens["slow"], 2).status_code == 200
    assert predict(server, tokens["free"], 100).status_code == 200
    text = server.http.get("/metrics").text
    assert 'homeostat_errors_total{kind="too-many-requests",model="shapes"} 2.0' in text


def test_keys_change_while_the_server_runs(server: Server, settings: Settings) -> None:
    """A new key opens, one that was removed does not, and a file that is wrong, empty or gone
    changes nothing: it opens the server to nobody."""
    before = settings.keys_path.read_text()
    token, key = new_key("new", PREDICT)
    add_key(settings.keys_path, key)
    server.wait_for(lambda: predict(server, token, 1).status_code == 200)
    settings.keys_path.write_text(before)
    server.wait_for(lambda: predict(server, token, 1).status_code == 401)
    for text, says in (("[[keys]", "stay as they were"), ("", "has no keys any more")):
        settings.keys_path.write_text(text)
        server.wait_for(lambda says=says: says in server.log.read_text())  # type: ignore[misc]
        assert server.predict([ROW]).status_code == 401
    settings.keys_path.unlink()
    server.process.send_signal(signal.SIGHUP)  # for a look at once, which must change nothing
    server.wait_for(lambda: "keys and certificate are read again" in server.log.read_text())
    assert server.predict([ROW]).status_code == 401
    settings.keys_path.write_text(before)
