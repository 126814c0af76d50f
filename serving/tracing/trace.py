"""One request that is traced: what it went through, and when, in nanoseconds since 1970.

Nothing here knows of OpenTelemetry: a request leaves its times behind, and what they become is
made in another thread (see exporting).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from serving.tracing.traceparent import Parent


class Span(NamedTuple):
    name: str
    began: int
    ended: int


class Stages(msgspec.Struct):
    """Of one batch, or of one try to answer it."""

    began: int
    rows: int
    computed: tuple[int, int] | None = None  # None: the model was not asked, see Recalling
    logged: tuple[int, int] | None = None
    ended: int = 0


class Trace(msgspec.Struct):
    name: str
    parent: Parent | None
    attributes: Mapping[str, str]  # of the door
    began: int
    ended: int = 0
    model: str = ""
    version: str = ""  # that answered
    role: str = ""
    rows: int = 0
    ids: Sequence[str] = ()
    queued: int = 0
    stages: Stages | None = None
    error: str | None = None  # the kind of problem that the caller was told of
    failed: bool = False  # it was ours

    def spans(self) -> Iterator[Span]:
        """The parts of it, one after the other."""
        stages = self.stages
        if stages is None:
            return
        yield Span("queue", self.queued, stages.began)
        at = stages.began
        for name, part in (("compute", stages.computed), ("log", stages.logged)):
            if part is not None:
                yield Span(name, *part)
                at = part[1]
        if self.error is None:
            yield Span("encode", at, stages.ended)
