"""What was traced -> spans of OpenTelemetry -> a collector, from a thread of its own.

Requests wait for none of it: what finds no room in the queue is dropped, and so is what the
collector does not take.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.status import StatusCode
from opentelemetry.util.types import AttributeValue

from serving.tracing.trace import Trace

log = logging.getLogger(__name__)

MOST_WAITING = 2048  # requests
AT_ONCE = 32  # what is encoded together holds up the event loop, which needs the same interpreter
EVERY = 1.0  # seconds between two looks at what waits
PATIENCE = 5.0  # seconds for the collector to take what it is given, further tries included
TELL_EVERY = 60.0  # seconds between two lines about a collector that does not


class Exporter:
    """`sent` and `dropped` are told numbers of requests, `dropped` from any thread."""

    def __init__(
        self, collector: str, *, sent: Callable[[int], None], dropped: Callable[[int], None]
    ) -> None:
        self._url = url_of(collector)
        self._exporter = OTLPSpanExporter(endpoint=self._url, timeout=PATIENCE)
        self._maker = SpanMaker()
        self._sent = sent
        self._dropped = dropped
        self._waiting: deque[Trace] = deque()
        self._counting = threading.Lock()  # of the two below
        self._at_work: list[Trace] = []  # what the collector is being given
        self._over = False  # nothing is sent any more
        self._wake = threading.Event()
        self._ending = False
        self._told_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, trace: Trace) -> None:
        """Waits for nothing."""
        waiting = self._waiting
        if self._over or len(waiting) >= MOST_WAITING:
            self._dropped(1)
            return
        waiting.append(trace)
        if len(waiting) == AT_ONCE:
            self._wake.set()

    def stop(self, within: float) -> None:
        """Send what waits, as far as the collector takes it in that many seconds. The rest is
        dropped, and so is what it is being given then."""
        self._ending = True
        self._wake.set()
        self._thread.join(within)
        with self._counting:
            self._over = True
            left = len(self._at_work) + len(self._waiting)
            self._waiting.clear()
        if left:
            self._dropped(left)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _run(self) -> None:
        ending = False
        while not ending:
            self._wake.wait(EVERY)
            self._wake.clear()
            ending = self._ending  # looked at before the queue: what came before it is sent
            while traces := self._next():
                self._send(traces)

    def _next(self) -> list[Trace]:
        with self._counting:
            count = min(len(self._waiting), AT_ONCE)
            self._at_work = [self._waiting.popleft() for _ in range(count)]
            return self._at_work

    def _send(self, traces: list[Trace]) -> None:
        try:
            spans = self._maker.spans_of(traces)
            taken = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception:  # this thread has to go on
            log.exception("traces could not be written")
            taken = False
        with self._counting:
            if self._over:  # and counted: see stop
                return
            self._at_work = []
            (self._sent if taken else self._dropped)(len(traces))
        if taken:
            return
        now = time.monotonic()
        if self._told_at is None or now - self._told_at > TELL_EVERY:
            self._told_at = now
            log.error(
                "%s does not take traces; they are dropped, and answers go on (serving.traces)",
                self._url,
            )


class SpanMaker:
    """Spans of requests that are over."""

    def __init__(self) -> None:
        self._ended = _Ended()
        provider = TracerProvider(ALWAYS_ON, _resource(), shutdown_on_exit=False)
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer("homeostat")

    def spans_of(self, traces: list[Trace]) -> list[ReadableSpan]:
        for trace in traces:
            self._make(trace)
            time.sleep(0)  # the event loop may go on in between
        made, self._ended.spans = self._ended.spans, []
        return made

    def _make(self, trace: Trace) -> None:
        whole = self._tracer.start_span(
            trace.name,
            _context_of(trace),
            SpanKind.SERVER,
            _attributes_of(trace),
            start_time=trace.began,
        )
        within = set_span_in_context(whole, Context())
        for name, began, ended in trace.spans():
            part = self._tracer.start_span(name, within, start_time=began)
            if name == "compute" and trace.stages is not None:
                part.set_attribute("homeostat.batch_rows", trace.stages.rows)
            part.end(max(began, ended))  # a clock may be set back
        if trace.failed:
            whole.set_status(StatusCode.ERROR)
        whole.end(max(trace.began, trace.ended))


class _Ended(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def _context_of(trace: Trace) -> Context:
    """The caller's span, or nothing: then a trace begins here."""
    parent = trace.parent
    if parent is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    context = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(context), Context())


def _attributes_of(trace: Trace) -> dict[str, AttributeValue]:
    told: dict[str, AttributeValue] = dict(trace.attributes)
    if trace.model:
        told |= {
            "homeostat.model": trace.model,
            "homeostat.version": trace.version,
            "homeostat.role": trace.role,
            "homeostat.rows": trace.rows,
            "homeostat.prediction_ids": list(trace.ids),
        }
        if trace.stages is not None and trace.error is None:
            told["homeostat.cached"] = trace.stages.computed is None
    if trace.error is not None:
        told["error.type"] = trace.error
    return told


def _resource() -> Resource:
    """Who we are, unless OpenTelemetry's own variables say otherwise."""
    found = Resource.create()
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: "homeostat"}))
    return found


def url_of(collector: str) -> str:
    """Where the traces go: by the protocol's own path, unless it is said."""
    path = urlsplit(collector).path
    return collector if path.strip("/") else f"{collector.rstrip('/')}/v1/traces"
