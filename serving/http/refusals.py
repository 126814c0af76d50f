"""A refusal as bytes."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serving.requests.door import Refusal
from serving.requests.problem import Refused, problem_of


def refusal_of(error: Refused) -> Refusal:
    """Where no door is known that would say it in its own form."""
    problem = problem_of(error)
    return Refusal(problem.status, problem.headers(), problem.body())


def written(refusal: Refusal, common: bytes, *, last: bool) -> list[bytes]:
    """`common`: lines of every answer; `last`: the connection ends with this one."""
    headers = {**refusal.headers, "content-length": str(len(refusal.body))}
    if last:
        headers["connection"] = "close"
    lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
    return [STATUS_LINE[refusal.status], common, *lines, b"\r\n", refusal.body]
