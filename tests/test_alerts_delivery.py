"""Events travel from the outbox to a real HTTP receiver, signed, at least once."""

from __future__ import annotations

import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import CollectorRegistry
from standardwebhooks import Webhook

from alerts.delivery import Deliverer
from alerts.endpoints import Endpoint, new_secret
from alerts.verify import verify
from homeostat import events as types
from homeostat.errors import AuthError
from homeostat.metrics import Instruments
from homeostat.records import Event
from homeostat.state import events
from homeostat.state.store import State, open_state

SECRET = new_secret()
HOUR = timedelta(hours=1)


@dataclass
class Receiver:
    """A webhook receiver that gives scripted answers (204 once they have run out)."""

    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    before_answer: Callable[[], object] = lambda: None
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/token-in-path"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.requests]

    def start(self, tls: Path | None = None) -> ThreadingHTTPServer:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append((headers, body))
                receiver.before_answer()
                status, extra = receiver.answers.pop(0) if receiver.answers else (204, {})
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = server.server_port
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    server = receiver.start()
    yield receiver
    server.shutdown()
    server.server_close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = open_state(f"sqlite:///{tmp_path}/state.db")
    yield state
    state.close()


class House:
    """A platform with endpoints: what the loop would hold, under a clock of the test."""

    def __init__(self, state: State, *endpoints: Endpoint, timeout: float = 10) -> None:
        self.state = state
        self.now = datetime.now(UTC)
        self.registry = CollectorRegistry()
        self.deliverer = Deliverer(
            state=state,
            model="shop",
            endpoints=endpoints,
            instruments=Instruments("loop", self.registry),
            clock=lambda: self.now,
            random=lambda: 0.5,
            timeout=timedelta(seconds=timeout),
        )

    def tell(self, type_: str = types.MODEL_PROMOTED, **data: Any) -> Event:
        with self.state.begin() as tx:
            return events.record(tx, type_, "shop", self.now, **data)

    def run(self, later: timedelta = timedelta(0)) -> int:
        self.now += later
        return self.deliverer.run_once(self.now)

    def attempts(self, outcome: str) -> float:
        labels = {"model": "shop", "outcome": outcome}
        return self.registry.get_sample_value("homeostat_deliveries_total", labels) or 0.0

    @property
    def waiting(self) -> float | None:
        return self.registry.get_sample_value("homeostat_outbox_waiting", {"model": "shop"})


def endpoint(receiver: Receiver, *patterns: str) -> Endpoint:
    return Endpoint(url=receiver.url, secrets=(SECRET,), events=patterns)


def test_an_event_arrives_once_and_its_signature_holds(state: State, receiver: Receiver) -> None:
    """The standard's own library accepts the request, and no second one follows."""
    house = House(state, endpoint(receiver))
    event = house.tell(version="7", reason="better")
    assert house.run() == 1
    assert house.run(later=24 * HOUR) == 0
    [(headers, body)] = receiver.requests
    message = Webhook(SECRET).verify(body, headers)
    assert message == {
        "type": "model.promoted",
        "timestamp": event.time.isoformat().replace("+00:00", "Z"),
        "data": {"version": "7", "reason": "better", "model": "shop", "event_id": event.event_id},
    }
    assert headers["webhook-id"] == event.event_id
    assert verify(headers, body, SECRET) == message
    assert (house.attempts("delivered"), house.waiting) == (1, 0)


def test_a_receiver_that_fails_is_tried_again(state: State, receiver: Receiver) -> None:
    """A 500 is followed by the same message, not before its time."""
    receiver.answers = [(500, {})]
    house = House(state, endpoint(receiver))
    house.tell()
    assert house.run() == 1
    assert house.waiting == 1
    assert house.run(later=timedelta(seconds=4)) == 0
    assert house.run(later=timedelta(seconds=6)) == 1
    assert receiver.ids[0] == receiver.ids[1]
    assert (house.attempts("failed"), house.attempts("delivered"), house.waiting) == (1, 1, 0)


def test_one_failure_spares_the_other_events_their_attempts(
    state: State, receiver: Receiver
) -> None:
    """A receiver that just failed is not asked again for the next event in line."""
    receiver.answers = [(500, {})]
    house = House(state, endpoint(receiver))
    for _ in range(3):
        house.tell()
    assert house.run() == 1
    assert house.run() == 0
    assert house.run(later=timedelta(seconds=10)) == 3


def test_a_redirect_is_not_followed(state: State, receiver: Receiver) -> None:
    """A 302 is a failure: nobody but the settings says where events go."""
    receiver.answers = [(302, {"location": receiver.url + "/elsewhere"})]
    house = House(state, endpoint(receiver))
    house.tell()
    house.run()
    assert len(receiver.requests) == 1
    assert house.attempts("failed") == 1


def test_retry_after_is_honoured(state: State, receiver: Receiver) -> None:
    """A receiver that asks for an hour gets an hour, for other events too."""
    receiver.answers = [(429, {"retry-after": "3600"})]
    house = House(state, endpoint(receiver))
    house.tell()
    house.run()
    house.tell(types.MODEL_ROLLED_BACK)
    assert house.run(later=HOUR / 2) == 0
    assert house.run(later=HOUR) == 2
    assert house.attempts("delivered") == 2


def test_an_endpoint_that_is_gone_gets_nothing_more(state: State, receiver: Receiver) -> None:
    """A 410 ends this delivery, those that wait, and those to come."""
    receiver.answers = [(410, {})]
    house = House(state, endpoint(receiver))
    house.tell()
    house.tell()
    assert house.run() == 1
    house.tell()
    assert house.run(later=24 * HOUR) == 0
    assert len(receiver.requests) == 1
    assert (house.attempts("dead"), house.waiting) == (2, 0)


def test_after_the_last_attempt_a_delivery_is_dead_and_said_so(
    state: State, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten attempts over three days, then an error in the log and a count."""
    receiver.answers = [(503, {})] * 99
    house = House(state, endpoint(receiver))
    house.tell()
    for _ in range(15):
        house.run(later=30 * HOUR)
    assert len(receiver.requests) == 10
    assert (house.attempts("failed"), house.attempts("dead"), house.waiting) == (9, 1, 0)
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "Gave up delivering model.promoted" in record.getMessage()
    assert "answered 503" in record.getMessage()


def test_a_receiver_that_was_away_gets_everything_when_it_is_back(state: State) -> None:
    """Nothing listens; later something does; every event is there, the oldest first."""
    receiver = Receiver()
    server = receiver.start()
    server.shutdown()
    server.server_close()
    house = House(state, endpoint(receiver))
    told = [house.tell().event_id for _ in range(3)]
    for _ in range(3):
        house.run(later=timedelta(minutes=10))
    assert house.waiting == 3
    server = receiver.start()
    for _ in range(3):
        house.run(later=3 * HOUR)
    server.shutdown()
    server.server_close()
    assert sorted(receiver.ids) == sorted(told)
    assert house.waiting == 0


def test_a_silent_receiver_does_not_hold_up_the_others(state: State, receiver: Receiver) -> None:
    """One is silent for as long as the other has not got all of its events, and fails then."""
    heard = threading.Event()

    def count() -> None:
        if len(receiver.requests) == 5:
            heard.set()

    receiver.before_answer = count
    in_time: list[bool] = []
    silent = Receiver([(500, {})], before_answer=lambda: in_time.append(heard.wait(30)))
    server = silent.start()
    house = House(state, endpoint(silent), endpoint(receiver), timeout=60)
    for _ in range(5):
        house.tell()
    house.run()
    assert in_time == [True]
    assert len(receiver.requests) == 5
    assert len(silent.requests) == 1  # left alone after its first failure
    assert (house.attempts("delivered"), house.attempts("failed")) == (5, 1)
    server.shutdown()
    server.server_close()


def test_a_receiver_that_never_answers_is_not_waited_for(state: State) -> None:
    """Once its time is over that is a failure like others."""
    release = threading.Event()
    silent = Receiver(before_answer=lambda: release.wait(60))
    server = silent.start()
    house = House(state, endpoint(silent), timeout=0.3)
    for _ in range(5):
        house.tell()
    assert house.run() == 1
    assert (house.attempts("failed"), house.waiting) == (1, 5)
    assert house.run() == 0
    release.set()
    server.shutdown()
    server.server_close()


def test_patterns_say_who_hears_of_what(state: State, receiver: Receiver) -> None:
    """Each endpoint gets what its patterns name; without any, what people want to hear of."""
    other = Receiver()
    server = other.start()
    house = House(state, endpoint(receiver), endpoint(other, "retrain.*", "gate.passed"))
    for type_ in (types.RETRAIN_STARTED, types.GATE_PASSED, types.DATA_BUG, types.MODEL_PROMOTED):
        house.tell(type_)
    house.run()
    server.shutdown()
    server.server_close()
    heard = [json.loads(body)["type"] for _, body in receiver.requests]
    assert heard == [types.DATA_BUG, types.MODEL_PROMOTED]
    assert [json.loads(body)["type"] for _, body in other.requests] == [
        types.RETRAIN_STARTED,
        types.GATE_PASSED,
    ]


def test_an_endpoint_taken_out_of_the_settings_leaves_nothing_waiting(
    state: State, receiver: Receiver
) -> None:
    """What nobody would ever send is given up, so that the outbox does not look stuck."""
    receiver.answers = [(500, {})]
    house = House(state, endpoint(receiver))
    house.tell()
    house.run()
    without = House(state)
    without.run()
    assert (without.attempts("dead"), without.waiting) == (1, 0)


CHILD = """
import random, sys
from datetime import UTC, datetime
from prometheus_client import CollectorRegistry
from alerts.delivery import Deliverer
from alerts.endpoints import Endpoint
from homeostat.metrics import Instruments
from homeostat.state.store import open_state
Deliverer(
    state=open_state(sys.argv[1]), model="shop",
    endpoints=[Endpoint(url=sys.argv[2], secrets=(sys.argv[3],))],
    instruments=Instruments("loop", CollectorRegistry()),
    clock=lambda: datetime.now(UTC), random=random.random,
).run_once(datetime.now(UTC))
"""


def test_killed_between_sending_and_settling_it_sends_the_same_id_again(
    state: State, receiver: Receiver
) -> None:
    """At least once: the receiver saw it, nobody wrote that down, so it comes once more."""
    house = House(state, endpoint(receiver))
    event = house.tell()
    child: list[subprocess.Popen[bytes]] = []
    started = threading.Event()

    def kill_the_sender() -> None:
        started.wait(20)
        os.kill(child[0].pid, signal.SIGKILL)
        child[0].wait()

    receiver.before_answer = kill_the_sender
    child.append(
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(state.engine.url), receiver.url, SECRET],
            cwd=Path(__file__).parent.parent,
        )
    )
    started.set()
    assert child[0].wait(60) == -signal.SIGKILL
    receiver.before_answer = lambda: None
    assert house.run(later=HOUR) == 1  # the sender's clock is ahead of ours
    assert receiver.ids == [event.event_id, event.event_id]
    assert house.run(later=HOUR) == 0


def test_no_log_line_shows_a_secret_or_the_path_of_a_webhook(
    state: State, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Even at the most talkative level, success and failure tell the host only."""
    caplog.set_level(logging.DEBUG)
    receiver.answers = [(500, {}), (204, {})]
    house = House(state, endpoint(receiver))
    house.tell()
    house.run()
    house.run(later=HOUR)
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert f"http://127.0.0.1:{receiver.port}" in told
    assert "token-in-path" not in "\n".join(
        r.getMessage() for r in caplog.records if r.name.startswith(("alerts", "httpx"))
    )
    assert SECRET not in told
    assert SECRET.removeprefix("whsec_") not in told
    assert SECRET not in repr(endpoint(receiver))


def test_a_forged_request_is_refused(state: State, receiver: Receiver) -> None:
    """A changed body or another secret does not verify."""
    house = House(state, endpoint(receiver))
    house.tell(version="7")
    house.run()
    [(headers, body)] = receiver.requests
    for forged, secret in ((body.replace(b"7", b"8"), SECRET), (body, new_secret())):
        with pytest.raises(AuthError) as raised:
            verify(headers, forged, secret)
        assert raised.value.status == 401


def certificate(folder: Path) -> Path:
    """A key and a certificate for 127.0.0.1 that nobody but its own file vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    kind = serialization.PrivateFormat.PKCS8
    file = folder / "certificate.pem"
    file.write_bytes(key.private_bytes(pem, kind, plain) + made.public_bytes(pem))
    return file


@pytest.mark.parametrize("trusted", [True, False])
def test_https_goes_only_to_whom_a_certificate_vouches_for(
    state: State, tmp_path: Path, trusted: bool
) -> None:
    """A private authority is trusted by SSL_CERT_FILE; a stranger's answer is no delivery."""
    receiver = Receiver()
    server = receiver.start(tls=certificate(tmp_path))
    House(state).tell()
    environ = {"SSL_CERT_FILE": str(tmp_path / "certificate.pem")} if trusted else {}
    url = receiver.url.replace("http:", "https:")
    subprocess.run(
        [sys.executable, "-c", CHILD, str(state.engine.url), url, SECRET],
        cwd=Path(__file__).parent.parent,
        env=os.environ | environ,
        check=True,
    )
    server.shutdown()
    server.server_close()
    with state.begin() as tx:
        waiting = events.due(tx, datetime.now(UTC) + HOUR)
    assert (len(receiver.requests), len(waiting)) == ((1, 0) if trusted else (0, 1))
