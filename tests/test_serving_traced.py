"""Which requests are traced, and what is known of them when they are over."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from collector_kit import collecting
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from words_kit import WORDS, Answers, Served, all_well, answered, load_words

from homeostat.errors import ModelError
from homeostat.model_runtime.contract import LoadedModel
from serving.batching.batcher import Batcher
from serving.requests.later import Later
from serving.requests.problem import Overloaded
from serving.tracing.exporting import AT_ONCE, MOST_WAITING, Exporter, url_of
from serving.tracing.trace import Trace
from serving.tracing.traceparent import Parent, parent_of
from serving.tracing.tracing import Tracing

digits = st.text("0123456789abcdef", min_size=1, max_size=33)
headers = st.one_of(
    st.from_regex(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z0-9]*)?\Z"),
    st.tuples(
        st.sampled_from(["00", "01", "ff", "0"]),
        st.one_of(st.just("0" * 32), st.text("0123456789abcdef", min_size=31, max_size=33)),
        st.one_of(st.just("0" * 16), st.text("0123456789abcdefG", min_size=16, max_size=16)),
        st.sampled_from(["00", "01", "03", "ff", "1"]),
    ).map("-".join),
    st.text(max_size=60),
)


@given(headers)
def test_a_header_is_read_as_opentelemetry_reads_it(header: str) -> None:
    """Right ones, nearly right ones, and others."""
    context = TraceContextTextMapPropagator().extract({"traceparent": header})
    theirs = get_current_span(context).get_span_context()
    ours = parent_of(header.encode())
    expected = Parent(theirs.trace_id, theirs.span_id, theirs.trace_flags.sampled)
    assert ours == (expected if theirs.is_valid else None)


def tracing(share: float = 1.0, chance: float = 0.0) -> tuple[Tracing, list[Trace]]:
    found: list[Trace] = []
    return Tracing(share, found.append, itertools.count(1).__next__, lambda: chance), found


@pytest.mark.parametrize(
    ("share", "chance", "header", "traced"),
    [
        (0.25, 0.24, None, True),
        (0.25, 0.25, None, False),
        (0.0, 0.0, None, False),
        (1.0, 0.999, None, True),
        (0.0, 0.9, b"00-%032x-%016x-01" % (1, 1), True),
        (1.0, 0.0, b"00-%032x-%016x-00" % (1, 1), False),
        (1.0, 0.0, b"00-nonsense", True),
    ],
)
def test_who_is_traced(share: float, chance: float, header: bytes | None, traced: bool) -> None:
    """Whom the caller says; of the others a share."""
    found = tracing(share, chance)[0].begin("x", {}, header)
    assert (found is not None) == traced


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[int, LoadedModel]:
    """1 knows twice as many words as 2, which fails on the others."""
    folder = tmp_path_factory.mktemp("words")
    return {number: load_words(folder, number, WORDS * (1 + number % 2)) for number in (1, 2)}


KNOWN, UNKNOWN = [[1, 2]], [[1, WORDS + 5]]


def submit(
    served: Served, traces: Tracing, rows: list[list[int]], name: str | None = None
) -> Later[Any]:
    """As a door does."""
    trace = traces.begin("POST /predict", {}, None)
    assert trace is not None
    with traces.looking_at(trace):
        answer = served.submit(rows, name=name)
    traces.end_with(trace, answer)
    return answer


@pytest.mark.parametrize("durability", ["spool", "sync"])  # sync: in the model's own thread
def test_requests_of_a_batch_keep_apart(
    tmp_path: Path, loaded: dict[int, LoadedModel], durability: str
) -> None:
    """Each has the ids of its own answer, and its neighbour's failure is not its own."""
    traces, found = tracing()
    served = Served(tmp_path, f'durability = "{durability}"', tracing=traces)

    async def work() -> Answers:
        served.serve(loaded[2])
        return await answered([submit(served, traces, r) for r in (KNOWN, UNKNOWN, KNOWN * 2)])

    answers = served.run(work)
    assert [type(each) for each in answers] == [dict, ModelError, dict]
    told = {each.rows * (each.error is None): each for each in found}
    for answer in answers:
        if isinstance(answer, dict):
            assert list(told[len(answer["ids"])].ids) == answer["ids"]
            assert names(told[len(answer["ids"])]) == ["queue", "compute", "log", "encode"]
    assert (told[0].error, told[0].failed, names(told[0])) == (
        "model-failed",
        True,
        ["queue", "compute"],
    )
    for trace in found:
        times = [trace.began, *itertools.chain(*(each[1:] for each in trace.spans())), trace.ended]
        assert times == sorted(times)


def names(trace: Trace) -> list[str]:
    return [each.name for each in trace.spans()]


def test_whoever_stands_in_is_named(tmp_path: Path, loaded: dict[int, LoadedModel]) -> None:
    """The version that answered, and that it did so instead; copies for a shadow are no part."""
    traces, found = tracing()
    settings = 'breaker_errors = 1\nbreaker_rest = "1ms"'
    served = Served(tmp_path, serving=settings, tracing=traces)

    async def work() -> None:
        served.serve(loaded[2], previous=loaded[1])
        await answered([submit(served, traces, UNKNOWN)])
        await asyncio.sleep(0.005)
        await answered([submit(served, traces, UNKNOWN)])  # which tries version 2 first

    served.run(work)
    told = [(each.version, each.role, each.error) for each in found]
    assert told == [("2", "champion", "model-failed"), ("1", "fallback", None)]


def test_a_neighbour_in_a_batch_is_no_part_of_a_trace(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """Whatever follows from its answer, such as the next request of its connection."""
    traces, found = tracing()
    served = Served(tmp_path, tracing=traces)
    seen: list[Trace | None] = []

    async def work() -> None:
        served.serve(loaded[1])
        told = [submit(served, traces, KNOWN), served.submit(KNOWN)]
        told[1].add_done_callback(lambda _: seen.append(traces.current))
        await answered(told)

    served.run(work)
    assert (seen, len(found)) == ([None], 1)


@pytest.mark.parametrize("traced", ["neighbour", "own"])
def test_whoever_stands_in_does_so_for_the_right_one(
    tmp_path: Path, loaded: dict[int, LoadedModel], traced: str
) -> None:
    """Also after a try in a batch that another request began."""
    traces, found = tracing()
    settings = 'breaker_errors = 1\nbreaker_rest = "1ms"'
    served = Served(tmp_path, serving=settings, tracing=traces)

    async def work() -> None:
        served.serve(loaded[2], previous=loaded[1])
        await answered([served.submit(UNKNOWN)])
        await asyncio.sleep(0.005)
        if traced == "neighbour":
            told = [submit(served, traces, KNOWN, name="2"), served.submit(UNKNOWN)]
        else:
            told = [served.submit(KNOWN, name="2"), submit(served, traces, UNKNOWN)]
        assert [answer["version"] for answer in all_well(await answered(told))] == ["2", "1"]

    served.run(work)
    expected = ("2", "champion") if traced == "neighbour" else ("1", "fallback")
    assert [(each.version, each.role) for each in found] == [expected]


def test_what_finds_no_room_is_told(tmp_path: Path, loaded: dict[int, LoadedModel]) -> None:
    """A request that never was in the queue has none of its parts."""
    traces, found = tracing()
    served = Served(tmp_path, tracing=traces)

    async def work() -> None:
        served.serve(loaded[1])
        waiting = [submit(served, traces, KNOWN * 20)]
        with pytest.raises(Overloaded):
            submit(served, traces, KNOWN)
        await answered(waiting)

    served.run(work)
    assert [(each.rows, each.error, names(each) == []) for each in found] == [
        (1, "service-unavailable", True),
        (20, None, False),
    ]


def test_without_traces_nothing_is_in_the_way(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """It is decided once, when a version is put together."""
    served = Served(tmp_path)

    async def work() -> None:
        assert type(served.version(loaded[1]).batcher) is Batcher

    served.run(work)


@pytest.mark.parametrize(
    ("given_", "url"),
    [
        ("http://a:4318", "http://a:4318/v1/traces"),
        ("http://a:4318/", "http://a:4318/v1/traces"),
        ("https://a/otlp/v1/traces", "https://a/otlp/v1/traces"),
    ],
)
def test_where_traces_go(given_: str, url: str) -> None:
    """By the protocol's path where none is said."""
    assert url_of(given_) == url


class Tally:
    def __init__(self, url: str) -> None:
        self.sent = self.dropped = 0
        self.exporter = Exporter(url, sent=self.was_sent, dropped=self.was_dropped)

    def was_sent(self, count: int) -> None:
        self.sent += count

    def was_dropped(self, count: int) -> None:
        self.dropped += count


def over(count: int) -> Sequence[Trace]:
    return [Trace("x", None, {}, 1, 2) for _ in range(count)]


def test_more_than_a_collector_takes_is_dropped_and_counted() -> None:
    """Nobody waits for one that takes connections and says nothing, not even at the end."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tally = Tally(f"http://127.0.0.1:{silent.getsockname()[1]}")
        tally.exporter.start()
        for trace in over(MOST_WAITING + AT_ONCE + 100):
            tally.exporter.put(trace)
        assert tally.dropped >= 100
        assert tally.sent == 0
        tally.exporter.stop(0.1)
        tally.exporter.put(over(1)[0])
        assert (tally.sent, tally.dropped) == (0, MOST_WAITING + AT_ONCE + 101)


def test_what_a_collector_takes_is_counted() -> None:
    """All of it, however much at once, and what comes right before the end."""
    with collecting() as collector:
        tally = Tally(collector.url)
        tally.exporter.start()
        for trace in over(AT_ONCE * 3):
            tally.exporter.put(trace)
        collector.traces(AT_ONCE * 3)
        tally.exporter.put(over(1)[0])
        tally.exporter.stop(20.0)
        assert (tally.sent, tally.dropped) == (AT_ONCE * 3 + 1, 0)
        assert len(collector.traces(1)) == AT_ONCE * 3 + 1
