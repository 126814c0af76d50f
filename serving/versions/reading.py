"""A body whose reading would hold up the event loop -> its rows, from a thread -> the version that
serves by then."""

from __future__ import annotations

from functools import partial

from homeostat.errors import NotReady
from homeostat.model_runtime.likeness import alike
from serving.requests.aside import Then
from serving.requests.asked import Asked
from serving.requests.forms import Written
from serving.requests.later import Later
from serving.requests.limits import charged
from serving.requests.parsing import Rows
from serving.versions.dispatch import Read, dispatch
from serving.versions.served_model import ServedModel, Version


def read_aside(
    model: ServedModel, read: Read, asked: Asked | None, size: int, name: str | None = None
) -> Later[Written]:
    """As `dispatch`, for a large body, of `size` bytes; the key's charge is made here."""
    version = named_version(model, name)
    return version.large.later(
        partial(read, version), after_reading(model, version, asked, name), asked, size
    )


def named_version(model: ServedModel, name: str | None) -> Version:
    """The one that serves, or the one of that name; raises Refused (404), NotReady."""
    return model.ready() if name is None else model.named(name)[0]


def after_reading(
    model: ServedModel, version: Version, asked: Asked | None, name: str | None
) -> Then:
    """What becomes of rows that were read for `version`."""

    def submit(rows: Rows) -> Later[Written]:
        def read(serving: Version) -> Rows:
            if serving is not version and not alike(version.model.spec, serving.model.spec):
                raise NotReady("another version serves by now, with another input; try again")
            return rows

        charge = asked.charge if asked is not None else None
        return dispatch(model, charged(read, charge), asked, name)

    return submit
