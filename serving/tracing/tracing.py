"""Which requests are traced, and which one is being looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from serving.http2.calls import Answer
from serving.requests.problem import problem_of
from serving.tracing.trace import Trace
from serving.tracing.traceparent import parent_of

_TOO_MUCH = 429  # rows of a key, see requests.limits


class Tracing:
    """Of one process. `share`: of the requests whose callers do not say; `chance` gives numbers
    from 0 to 1; `put` takes what is traced to its end, and may not wait."""

    def __init__(
        self,
        share: float,
        put: Callable[[Trace], None],
        now_ns: Callable[[], int],
        chance: Callable[[], float],
    ) -> None:
        self.now_ns = now_ns
        self._share = share
        self._put = put
        self._chance = chance
        self._current: ContextVar[Trace | None] = ContextVar("trace", default=None)

    def begin(
        self, name: str, attributes: Mapping[str, str], traceparent: bytes | None
    ) -> Trace | None:
        """None: this request is not traced."""
        parent = parent_of(traceparent)
        wanted = self._is_of_the_share() if parent is None else parent.sampled
        return Trace(name, parent, attributes, self.now_ns()) if wanted else None

    @property
    def current(self) -> Trace | None:
        """Of the request that is being read, or whatever follows from that on the event loop."""
        return self._current.get()

    @contextmanager
    def looking_at(self, trace: Trace, *, admitted: bool = True) -> Iterator[None]:
        """Its end with an error where one is raised. `admitted`: see end."""
        token = self._current.set(trace)
        try:
            yield
        except Exception as error:
            self.end(trace, error, admitted=admitted)
            raise
        finally:
            self._current.reset(token)

    @contextmanager
    def looking_at_none(self) -> Iterator[None]:
        """For what is begun here and goes on for others too."""
        token = self._current.set(None)
        try:
            yield
        finally:
            self._current.reset(token)

    def leave(self) -> None:
        """What follows is of a request that is not traced, though another one led here."""
        if self._current.get() is not None:
            self._current.set(None)

    def end_with(self, trace: Trace, answer: Answer, *, admitted: bool = True) -> None:
        """Once the answer is there. `admitted`: see end."""

        def done(found: Answer) -> None:
            self.end(trace, found.exception(), admitted=admitted)

        answer.add_done_callback(done)

    def end(
        self, trace: Trace, error: BaseException | None = None, *, admitted: bool = True
    ) -> None:
        """`admitted`: it is known that the caller may ask. Of those who may not, or not as much,
        only the share is traced: or anybody could have as many traces made as he likes."""
        trace.ended = self.now_ns()
        if error is not None:
            problem = problem_of(error)
            trace.error, trace.failed = problem.kind, problem.status >= 500
            refused = not admitted or problem.status == _TOO_MUCH
            if refused and trace.parent is not None and not self._is_of_the_share():
                return
        self._put(trace)

    def _is_of_the_share(self) -> bool:
        return self._chance() < self._share
