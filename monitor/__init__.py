"""Window + reference -> scores -> verdict, with an Evidently report as evidence.

Importing this package is cheap; `monitor.check` brings pandas along when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monitor.notebook import check

__all__ = ["check"]


def __getattr__(name: str) -> Any:
    if name == "check":
        from monitor.notebook import check

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
