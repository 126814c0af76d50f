"""What one process reads again at SIGHUP; and which changed settings wait for a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass

from homeostat.errors import SettingsError
from homeostat.settings import Settings
from serving.http.http_server import Certificate

log = logging.getLogger(__name__)

SECTIONS = ("model", "home", "serving", "journal", "auth")  # what a server goes by
Reread = Callable[[], Sequence[Settings]]


def read_again(
    certificates: Sequence[Certificate],
    looks: Sequence[Callable[[], None]],
    projects: Sequence[Settings],
    reread: Reread,
) -> None:
    """Keys (by `looks`) and certificate hold from here on; of the settings it is only told which
    were changed. What is wrong changes nothing."""
    for look in looks:
        look()
    try:
        for certificate in certificates:
            certificate.read()
    except SettingsError as error:
        log.error("%s; the certificate before is kept", error)
    else:
        log.info("keys and certificate are read again")
    try:
        again = reread()
    except SettingsError as error:
        log.error("the settings would not allow a restart: %s", error)
        return
    for old, new in zip(projects, again, strict=True):
        waiting = list(changed(old, new))
        if waiting:
            log.warning(
                "%s: changed since the start, and not in force before a restart: %s",
                old.model.name,
                ", ".join(waiting),
            )


def changed(old: Settings, new: Settings) -> Iterator[str]:
    """The keys of a server's settings that have another value now."""
    for section in SECTIONS:
        before, now = getattr(old, section), getattr(new, section)
        if is_dataclass(before):
            for field in fields(before):
                if getattr(before, field.name) != getattr(now, field.name):
                    yield f"{section}.{field.name}"
        elif before != now:
            yield section
