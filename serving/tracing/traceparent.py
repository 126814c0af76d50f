"""Which trace a request belongs to, as its caller says (W3C Trace Context, level 1)."""

from __future__ import annotations

import re
from typing import NamedTuple

HEADER = b"traceparent"
_FORM = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_SAMPLED = 1


class Parent(NamedTuple):
    """The caller's own span."""

    trace_id: int
    span_id: int
    sampled: bool


def parent_of(header: bytes | None) -> Parent | None:
    """None where there is none, or what is there is not valid: then a new trace begins."""
    found = None if header is None else _FORM.fullmatch(header.strip())
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    if not (trace_id and span_id):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))
