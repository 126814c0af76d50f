"""Calls of gRPC that begin a trace where one is to have it."""

from __future__ import annotations

from serving.http2.calls import Answer, Call, Calls
from serving.http2.messages import Refused
from serving.tracing.traceparent import HEADER
from serving.tracing.tracing import Tracing


class TracedCalls:
    """See http2.calls.Calls; stands before others. Of all methods, `path` is traced."""

    def __init__(self, calls: Calls, path: bytes, tracing: Tracing) -> None:
        self.limit = calls.limit
        self._calls = calls
        self._path = path
        self._name = path.decode().lstrip("/")
        service, _, method = self._name.rpartition("/")
        self._attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        self._tracing = tracing

    def begin(self, call: Call, message: bytes) -> Answer:
        if call.path != self._path:
            return self._calls.begin(call, message)
        trace = self._tracing.begin(self._name, self._attributes, call.headers.get(HEADER))
        if trace is None:
            return self._calls.begin(call, message)
        with self._tracing.looking_at(trace):
            answer = self._calls.begin(call, message)
        self._tracing.end_with(trace, answer, admitted=call.admitted)
        return answer

    def refusal(self, error: BaseException) -> Refused:
        return self._calls.refusal(error)
