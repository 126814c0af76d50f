"""Large bodies are read one after the other: callers in turn, and none for whom it is too late."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import psutil
import pytest
from serving_kit import PATIENCE, Server, add_version, make_project, publish, running

from homeostat.auth import Scope, add_key, new_key
from homeostat.errors import InputError
from homeostat.settings import Settings
from serving.requests.aside import SHORT_TURN, Aside
from serving.requests.asked import Asked
from serving.requests.forms import Written
from serving.requests.later import Later
from serving.requests.parsing import Rows
from serving.requests.problem import Overdue, Overloaded


def slow(rows: int) -> bytes:
    """A body whose last value is wrong: it is read value by value."""
    return b'{"rows":[%b[0,1,2,"x"]]}' % (b"[0,1,2,3]," * rows)


LARGE = 60_000  # rows, read aside, and for hundreds of milliseconds where one is wrong
QUICK = b'{"rows":[%b[0,1,2,3]]}' % (b"[0,1,2,3]," * 30_000)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = make_project(
        tmp_path_factory.mktemp("turns"), "[serving]\nmax_queued_rows = 5000000\n"
    )
    publish(settings, add_version(settings, 1, runtime="onnx"), epoch=1)
    return settings


@pytest.fixture(scope="module")
def tokens(settings: Settings) -> dict[str, str]:
    made = {}
    for name in ("many", "few"):
        made[name], key = new_key(name, frozenset(Scope))
        add_key(settings.keys_path, key)
    return made


@pytest.fixture(scope="module")
def server(settings: Settings, tokens: dict[str, str]) -> Iterator[Server]:
    headers = {"authorization": f"Bearer {tokens['many']}"}
    with running(settings.project, headers=headers) as found:
        yield found


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as found:
        yield found


def post(server: Server, body: bytes, **headers: str) -> httpx.Response:
    sent = {"content-type": "application/json"} | headers
    return server.http.post("/predict", content=body, headers=sent)


def in_flight(server: Server) -> int:
    text = server.http.get("/metrics").text
    found = re.search(r"^homeostat_in_flight_requests(?:{.*})? (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return int(float(found[1]))


def spent(server: Server) -> float:
    """Seconds of its processor."""
    times = psutil.Process(server.process.pid).cpu_times()
    return times.user + times.system


def answered(_rows: Rows) -> Later[Written]:
    """What rows lead to, once they are read."""
    answer: Later[Written] = Later()
    answer.set_result(b"read")
    return answer


def test_a_caller_hears_in_time_that_its_body_was_not_read(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    """While another body is read; and it is not read afterwards, which would be of no use."""
    first, late = slow(3 * LARGE), slow(LARGE)

    def one() -> float:
        before = spent(server)
        assert post(server, late).status_code == 422
        return spent(server) - before

    usual = min(one() for _ in range(3))

    def in_time_and_cheap() -> bool:
        before = spent(server)
        reading = threads.submit(post, server, first)
        hurried = {"x-request-timeout": "0.1"}
        sent = [threads.submit(post, server, late, **hurried) for _ in range(6)]
        found = {each.result().status_code for each in sent}
        in_time = found == {504} and not reading.done()
        assert found <= {504, 422}  # 422: it was its turn in time
        assert reading.result().status_code == 422
        one()  # behind all of them, had they stayed
        # four for the first and the last one; those that are late would cost six more
        return in_time and spent(server) - before < 7 * usual

    # on a machine that is fast, or held up, the first may be read before they come
    assert any(in_time_and_cheap() for _ in range(10))


def test_whose_body_is_large_comes_in_turn_with_its_key(
    server: Server, tokens: dict[str, str], threads: ThreadPoolExecutor
) -> None:
    """One that sends many does not hold up another's for as long as all of them take."""

    def passed() -> int:
        """How many of the many were read while another's was waiting."""
        many = [threads.submit(post, server, slow(LARGE)) for _ in range(6)]
        # with the one that asks for this
        server.wait_for(lambda: in_flight(server) > 6 or any(each.done() for each in many))
        before = sum(each.done() for each in many)
        answer = post(server, QUICK, authorization=f"Bearer {tokens['few']}")
        done = sum(each.done() for each in many)
        assert answer.status_code == 200, answer.text
        assert {each.result().status_code for each in many} == {422}
        return len(many) if before else done

    # the one that was being read, and one in its turn; more if this came late; in line all of them
    assert any(passed() <= 3 for _ in range(10))


def test_callers_take_turns() -> None:
    """Whose bodies came last is not behind all the others'; who was first in line goes first among
    those who have had as many."""
    free = threading.Event()
    went: list[str] = []

    def read(name: str) -> Rows:
        assert free.wait(PATIENCE)
        went.append(name)
        return Rows(1)

    async def ask() -> None:
        aside = Aside("images", 10)
        callers = ["many"] * 6 + ["few"] * 2
        answers = [aside.later(partial(read, each), answered, Asked(each)) for each in callers]
        free.set()
        assert [await each for each in answers] == [b"read"] * 8

    asyncio.run(ask())
    assert went == ["many", "many", "few", "many", "few", "many", "many", "many"]


def test_who_has_a_key_has_a_share_of_what_others_have_filled() -> None:
    """And no more than that; who has none has no share. Once it is read there is room again."""
    free = threading.Event()

    def read() -> Rows:
        assert free.wait(PATIENCE)
        return Rows(1)

    async def fill() -> None:
        aside, many, few = Aside("images", 4), Asked("many"), Asked("few")
        answers = [aside.later(read, answered, many) for _ in range(4)]
        answers += [aside.later(read, answered, few) for _ in range(2)]
        for asked in (many, few, None):
            with pytest.raises(Overloaded, match="6 images wait"):
                aside.later(read, answered, asked)
        free.set()
        assert [await each for each in answers] == [b"read"] * 6
        assert await aside.later(read, answered) == b"read"

    asyncio.run(fill())


class Timeless(asyncio.SelectorEventLoop):
    """An event loop whose clock goes when it is told to."""

    now = 0.0

    def time(self) -> float:
        return self.now


def test_what_is_overdue_goes_no_further() -> None:
    """Before it waits, while it waits, and while it is read."""
    begun, free = threading.Event(), threading.Event()
    went: list[str] = []

    def read(name: str) -> Callable[[], Rows]:
        def reading() -> Rows:
            went.append(f"{name} read")
            begun.set()
            assert free.wait(PATIENCE)
            return Rows(1)

        return reading

    def then(name: str) -> Callable[[Rows], Later[Written]]:
        def submit(rows: Rows) -> Later[Written]:
            went.append(f"{name} submitted")
            return answered(rows)

        return submit

    async def wait() -> None:
        aside, loop = Aside("images", 4), asyncio.get_running_loop()
        assert isinstance(loop, Timeless)
        with pytest.raises(Overdue):
            aside.later(read("past"), then("past"), Asked(until=0.0))
        first = aside.later(read("first"), then("first"), Asked(until=2.0))
        second = aside.later(read("second"), then("second"), Asked(until=1.0))
        third = aside.later(read("third"), then("third"))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        for late in (second, first):
            loop.now += 1.0
            with pytest.raises(Overdue, match="before its body was read"):
                await late
        free.set()
        assert await third == b"read"

    with asyncio.Runner(loop_factory=Timeless) as runner:
        runner.run(wait())
    assert went == ["first read", "third read", "third submitted"]


def test_the_event_loop_has_its_turn_sooner_while_a_body_is_read() -> None:
    """And as usual once none is: it costs others a little."""
    usual = sys.getswitchinterval()
    found: list[float] = []

    def read() -> Rows:
        found.append(sys.getswitchinterval())
        raise InputError("wrong")

    async def ask() -> None:
        for _ in range(2):
            with pytest.raises(InputError):
                await Aside("images", 4).later(read, lambda _: Later())
            assert sys.getswitchinterval() == usual

    asyncio.run(ask())
    assert found == [SHORT_TURN] * 2
    assert usual > SHORT_TURN
