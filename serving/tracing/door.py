"""Doors that begin a trace where a request is to have one."""

from __future__ import annotations

import re
from typing import Any

from serving.requests.door import Door, Headers, Refusal
from serving.requests.forms import Written
from serving.requests.later import Later
from serving.tracing.trace import Trace
from serving.tracing.traceparent import HEADER
from serving.tracing.tracing import Tracing

_VERSION = re.compile(r"/versions/[^/]+/")  # callers may write what they like: no name of a span


class TracedDoor:
    """See door.Door; stands before another one."""

    def __init__(self, door: Door, path: str, tracing: Tracing) -> None:
        route = _VERSION.sub("/versions/{version}/", path)
        self.limit = door.limit
        self._door = door
        self._name = f"POST {route}"
        self._attributes = {"http.request.method": "POST", "http.route": route}
        self._tracing = tracing

    def admit(self, headers: Headers) -> tuple[Any, Trace | None]:
        traceparent = next((value for name, value in headers if name == HEADER), None)
        trace = self._tracing.begin(self._name, self._attributes, traceparent)
        if trace is None:
            self._tracing.leave()  # a request may begin where the one before it was answered
            return self._door.admit(headers), None
        with self._tracing.looking_at(trace, admitted=False):
            return self._door.admit(headers), trace

    def answer(self, body: bytes, told: tuple[Any, Trace | None]) -> Later[Written]:
        inner, trace = told
        if trace is None:
            return self._door.answer(body, inner)
        with self._tracing.looking_at(trace):
            answer = self._door.answer(body, inner)
        self._tracing.end_with(trace, answer)
        return answer

    def answered(self, started: float) -> None:
        self._door.answered(started)

    def refuse(self, error: BaseException) -> Refusal:
        return self._door.refuse(error)
