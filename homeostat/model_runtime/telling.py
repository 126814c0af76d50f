"""What the errors of every runtime say: which version it is, and what a library had to say."""

from __future__ import annotations

from homeostat.records import ModelSpec


def version_of(spec: ModelSpec) -> str:
    return f"version {spec.version} of {spec.model}"


def line_of(error: BaseException) -> str:
    """Its kind and its first line: libraries tell their whole stack behind it."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
