"""A collector of traces: OTLP over HTTP, as much of it as a test needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PATIENCE = 30.0


@dataclass
class Collected:
    """One request's spans."""

    root: Span
    parts: dict[str, Span]
    resource: dict[str, Any]

    @property
    def said(self) -> dict[str, Any]:
        return attributes(self.root)


@dataclass
class Collector:
    url: str
    status: int = 200  # of its answers
    spans: list[tuple[Span, dict[str, Any]]] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    asked: int = 0

    def traces(self, count: int) -> list[Collected]:
        """Once so many requests are there, in the order they began."""
        until = time.monotonic() + PATIENCE
        while True:
            found = self._by_request()
            if len(found) >= count:
                return found
            assert time.monotonic() < until, f"{len(found)} of {count} requests"
            time.sleep(0.02)

    def _by_request(self) -> list[Collected]:
        spans, server = list(self.spans), Span.SPAN_KIND_SERVER
        roots = {s.span_id: Collected(s, {}, told) for s, told in spans if s.kind == server}
        for span, _ in spans:
            if span.kind != server:
                whole = roots[span.parent_span_id]
                assert span.trace_id == whole.root.trace_id
                assert span.name not in whole.parts
                whole.parts[span.name] = span
        return sorted(roots.values(), key=lambda each: each.root.start_time_unix_nano)


def attributes(of: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in of.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def collecting() -> Iterator[Collector]:
    """Until the end of the block."""
    collector = Collector("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.asked += 1
            if collector.status == 200:
                request = ExportTraceServiceRequest.FromString(body)
                collector.paths.add(self.path)
                collector.spans += [
                    (span, attributes(group.resource))
                    for group in request.resource_spans
                    for scope in group.scope_spans
                    for span in scope.spans
                ]
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
