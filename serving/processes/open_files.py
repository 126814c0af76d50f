"""How many files a process may have open: each connection is one, and the log needs some too."""

from __future__ import annotations

import contextlib
import logging
import resource

log = logging.getLogger(__name__)

FEW = 8192


def allow_all_files() -> None:
    """As many as the system lets this process have, and those it starts. The usual 1024 is for the
    sake of programs that call select(), which nothing here does."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # where "no limit" is not what it says: macOS
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < FEW:
        log.warning(
            "at most %d files may be open in a process, and each connection is one: with more "
            "callers than that raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd)",
            allowed,
        )
