"""Calls of gRPC that begin a trace where one is to have it."""

from __future__ import annotations

from homeostat.errors import HomeostatError
from serving.http2.calls import Answer, Call, Calls
from serving.http2.messages import Refused
from serving.tracing.trace import Trace
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

    def admit(self, call: Call) -> int:
        try:
            return self._calls.admit(call)
        except HomeostatError as error:
            if call.path == self._path:
                trace = self._begin(call)
                if trace is not None:
                    self._tracing.end(trace, error, admitted=False)
            raise

    def turned_away(self, call: Call, refused: Refused) -> None:
        """Without a trace, like what does not arrive over HTTP."""
        self._calls.turned_away(call, refused)

    def begin(self, call: Call, message: bytes) -> Answer:
        if call.path != self._path:
            return self._calls.begin(call, message)
        trace = self._begin(call)
        if trace is None:
            return self._calls.begin(call, message)
        with self._tracing.looking_at(trace):
            answer = self._calls.begin(call, message)
        self._tracing.end_with(trace, answer, admitted=call.admitted)
        return answer

    def _begin(self, call: Call) -> Trace | None:
        return self._tracing.begin(self._name, self._attributes, call.headers.get(HEADER))

    def refusal(self, error: BaseException) -> Refused:
        return self._calls.refusal(error)
