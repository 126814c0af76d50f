"""The decisions of alerts: who hears, what is sent, how it is signed, when again."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from alerts import retries, signing
from alerts.endpoints import Endpoint, check_secret, check_url, load_endpoints, new_secret
from alerts.routing import receivers, wants
from alerts.verify import verify
from homeostat import events as types
from homeostat.errors import AuthError, SettingsError
from homeostat.records import Event
from homeostat.settings import load

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)


def an_event(**data: object) -> Event:
    return Event(event_id="e-1", type=types.RETRAIN_FAILED, model="shop", time=NOW, data=data)


def settings_error(folder: Path, alerts: str, environ: dict[str, str]) -> SettingsError:
    (folder / "homeostat.toml").write_text(f'[model]\nname = "shop"\n{alerts}')
    with pytest.raises(SettingsError) as raised:
        load_endpoints(load(folder, environ), environ)
    return raised.value


def test_every_type_for_people_reaches_an_endpoint_without_patterns() -> None:
    """Promotions and bugs are heard of; each step of a run is not."""
    assert wants((), types.DATA_BUG)
    assert wants((), types.MODEL_ROLLED_BACK)
    assert not wants((), types.RETRAIN_STARTED)
    assert wants(("*",), types.RETRAIN_STARTED)
    endpoints = (
        Endpoint(url="https://a", secrets=(), events=("gate.*",)),
        Endpoint(url="https://b", secrets=()),
    )
    assert receivers(types.GATE_PASSED, endpoints) == ["https://a"]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 30), st.integers(0, 10**6))
def test_a_wait_is_at_least_the_schedule_and_what_the_receiver_asked_for(
    random: float, attempts: int, asked: int
) -> None:
    """Jitter only lengthens; Retry-After counts up to a day; after ten attempts it is over."""
    wait = retries.wait(attempts, random=random, retry_after=timedelta(seconds=asked))
    if attempts >= 10:
        assert wait is None
        return
    assert wait is not None
    assert wait >= retries.DELAYS[attempts - 1]
    assert wait >= min(timedelta(seconds=asked), retries.LONGEST)
    assert wait <= timedelta(hours=24) * 1.2


def test_retry_after_is_read_in_both_its_forms() -> None:
    """Seconds or a date; nonsense and the past cost nothing."""
    assert retries.parse_retry_after("120", NOW) == timedelta(minutes=2)
    date = "Tue, 03 Nov 2026 12:30:00 GMT"
    assert retries.parse_retry_after(date, NOW) == timedelta(minutes=30)
    assert retries.parse_retry_after("Tue, 03 Nov 2020 12:30:00 GMT", NOW) == timedelta(0)
    assert retries.parse_retry_after("9" * 400, NOW) == retries.LONGEST
    for nonsense in (None, "", "soon", "-5", "1.5", "²"):
        assert retries.parse_retry_after(nonsense, NOW) is None


def test_only_a_2xx_acknowledges() -> None:
    """Redirects and informational answers do not."""
    assert [s for s in (100, 199, 200, 204, 299, 300, 302, 404, 500) if retries.accepted(s)] == [
        200,
        204,
        299,
    ]


@given(st.integers(-14, 14))
def test_the_signature_is_of_utc_whatever_zone_the_clock_has(hours: int) -> None:
    """The library takes the wall time for UTC; a receiver elsewhere must still accept."""
    endpoint = Endpoint(url="https://a", secrets=(new_secret(),))
    content = signing.body(an_event())
    now = datetime.now(timezone(timedelta(hours=hours)))
    headers = signing.headers(endpoint, "e-1", content, now)
    assert Webhook(endpoint.secrets[0]).verify(content, headers)["data"]["event_id"] == "e-1"


def test_while_a_secret_changes_both_are_accepted() -> None:
    """Two secrets, two signatures."""
    old, new = new_secret(), new_secret()
    content = signing.body(an_event())
    endpoint = Endpoint(url="https://a", secrets=(old, new))
    headers = signing.headers(endpoint, "e-1", content, datetime.now(UTC))
    assert verify(headers, content, old) == verify(headers, content, new)


@pytest.mark.parametrize(
    "data",
    [
        {"tail": "x" * 50_000, "reason": "it crashed"},
        {"tail": "\u0000" * 50_000},
        {"scores": [{"column": f"c{i}", "value": 0.5} for i in range(5000)]},
        {f"key{i}": "some text" for i in range(5000)},
    ],
    ids=["long text", "escapes", "long list", "many keys"],
)
def test_a_body_stays_below_the_standards_limit(data: dict[str, object]) -> None:
    """What is too large is cut with a mark, and the event can still be told apart."""
    content = signing.body(an_event(**data))
    assert len(content) < 20_000
    message = json.loads(content)
    assert message["data"]["event_id"] == "e-1"
    assert message["data"]["model"] == "shop"
    assert "cut" in content.decode() or "more]" in content.decode()


def test_of_a_programs_output_mostly_the_end_is_kept() -> None:
    """The last lines say why it crashed."""
    tail = "\n".join(f"line {i}" for i in range(20_000))
    sent = json.loads(signing.body(an_event(tail=tail, reason="short")))["data"]
    assert sent["tail"].endswith("line 19999")
    assert "characters cut" in sent["tail"]
    assert sent["reason"] == "short"


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-signature": None},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,a,b"},
        {"webhook-signature": "v1,%%%"},
        {"webhook-signature": "v1,ä"},
        {"webhook-timestamp": "yesterday"},
        {"webhook-timestamp": "1"},
        {"webhook-id": ""},
    ],
    ids=str,
)
def test_every_malformed_header_is_one_error(change: dict[str, str | None]) -> None:
    """A receiver needs to catch AuthError and nothing else."""
    secret = new_secret()
    content = signing.body(an_event())
    endpoint = Endpoint(url="https://a", secrets=(secret,))
    headers = signing.headers(endpoint, "e-1", content, datetime.now(UTC))
    for name, value in change.items():
        headers.pop(name)
        if value is not None:
            headers[name] = value
    with pytest.raises(AuthError):
        verify(headers, content, secret)
    with pytest.raises(AuthError):
        verify({}, b"\xff\xfe", "no secret at all")


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org/ml?x=1",
        "https://10.0.0.7:8443/hook",
        "http://localhost:9000/hook",
        "http://127.0.0.9/hook",
        "http://[::1]:9000/hook",
    ],
)
def test_these_addresses_may_be_told(url: str) -> None:
    """https anywhere, private networks too; http on loopback."""
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/ml",
        "http://10.0.0.7/hook",
        "http://127.0.0.1.example.org/hook",
        "https://169.254.169.254/latest",
        "https://[fe80::1]/hook",
        "https://[::ffff:169.254.169.254]/hook",
        "https://user:word@hooks.example.org/ml",
        "ftp://hooks.example.org/ml",
        "https://",
        "https://host:port/",
        "https://[::1/",
        "hooks.example.org",
        "https://hooks.example.org/" + "x" * 600,
    ],
)
def test_these_addresses_may_not(url: str) -> None:
    """Unencrypted beyond loopback, link-local, with a password inside, or no address at all."""
    with pytest.raises(SettingsError) as raised:
        check_url(url, file="homeostat.toml", key="alerts[0].url")
    assert "alerts[0].url" in str(raised.value)
    assert "user:word" not in str(raised.value)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_ä" * 9]
)
def test_a_secret_that_is_none_is_refused_without_showing_it(secret: str) -> None:
    """The error says what a secret looks like and how to make one."""
    with pytest.raises(SettingsError, match="python -m alerts secret") as raised:
        check_secret(secret)
    assert not secret or secret == "whsec_" or secret not in str(raised.value)


def test_secrets_come_from_a_variable_or_a_file(tmp_path: Path) -> None:
    """Neither stands in the settings file."""
    first, second = new_secret(), new_secret()
    (tmp_path / "secret.txt").write_text(second + "\n")
    (tmp_path / "homeostat.toml").write_text(
        '[model]\nname = "shop"\n'
        '[[alerts]]\nurl = "https://a.example"\nsecret_env = "HOMEOSTAT_HOOK"\n'
        '[[alerts]]\nurl = "https://b.example"\nsecret_file = "secret.txt"\nevents = ["gate.*"]\n'
    )
    environ = {"HOMEOSTAT_HOOK": first}
    one, two = load_endpoints(load(tmp_path, environ), environ)
    assert (one.url, one.secrets, one.events) == ("https://a.example", (first,), ())
    assert (two.url, two.secrets, two.events) == ("https://b.example", (second,), ("gate.*",))


def test_a_missing_secret_says_what_to_do(tmp_path: Path) -> None:
    """No key, an unset variable, no file: each error names its key and the way out."""
    url = '[[alerts]]\nurl = "https://a.example"\n'
    error = settings_error(tmp_path, url, {})
    assert error.key == "alerts[0]"
    assert "secret_env" in str(error)
    error = settings_error(tmp_path, url + 'secret_env = "HOOK"', {})
    assert error.key == "alerts[0].secret_env"
    assert "HOOK" in str(error)
    assert "python -m alerts secret" in str(error)
    error = settings_error(tmp_path, url + 'secret_file = "none.txt"', {})
    assert error.key == "alerts[0].secret_file"
    error = settings_error(tmp_path, (url + 'secret_env = "HOOK"\n') * 2, {"HOOK": new_secret()})
    assert error.key == "alerts[1].url"


def test_the_command_makes_a_secret_that_is_accepted() -> None:
    """What the errors tell people to run works."""
    command = [sys.executable, "-m", "alerts", "secret"]
    root = Path(__file__).parent.parent
    made = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    check_secret(made.stdout.strip())
