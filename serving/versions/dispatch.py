"""One request -> the version that answers it: the champion, one on trial, one named by the caller,
or what stands in for one that fails.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context

from homeostat.errors import HomeostatError, ModelError
from homeostat.identifiers import uuid7_batch
from homeostat.model_runtime.likeness import alike
from serving.requests.asked import Asked
from serving.requests.forms import Written
from serving.requests.later import Later
from serving.requests.parsing import Rows
from serving.rules.circuit import Phase
from serving.rules.routing import Role, hash_of, key_of, route
from serving.versions.served_model import ServedModel, Version

Read = Callable[[Version], Rows]
NOTHING = Asked()


def dispatch(
    model: ServedModel, read: Read, asked: Asked | None = None, name: str | None = None
) -> Later[Written]:
    """The answer, later; raises HomeostatError, and so may the future.

    `read` reads the request's rows for a version. `name`: the version its caller wants, and no
    other will do. While ServedModel.plain is there, `plain.batcher.submit` is the same, and short.
    """
    if name is not None:
        version, role = model.named(name)
        return _submit(version, read(version), role, asked)
    champion = model.ready()
    rows = read(champion)
    match _role(model, champion, rows):
        case Role.CHALLENGER if model.trial is not None:
            return _ask(model, model.trial, rows, Role.CHALLENGER, asked)
        case Role.SHADOW:
            answer = _ask(model, champion, rows, Role.CHAMPION, asked)
            answer.add_done_callback(lambda done: _mirror(model, rows, done))
            return answer
    return _ask(model, champion, rows, Role.CHAMPION, asked)


def _role(model: ServedModel, champion: Version, rows: Rows) -> Role:
    rollout, trial = model.rollout, model.trial
    if rollout is None or trial is None or not alike(champion.model.spec, trial.model.spec):
        return Role.CHAMPION
    if rows.ids is None:  # by which chance decides, and a shadow's rows are known
        rows.ids = uuid7_batch(rows.count)
    return route(rollout, key_of(rows.keys), hash_of(rows.ids[0], model.name))


def _mirror(model: ServedModel, rows: Rows, answer: Later[Written]) -> None:
    if answer.exception() is not None:
        return
    shadow, trial = model.shadow, model.trial
    if shadow is None or trial is None:
        return
    if trial.health.ask():
        shadow.offer(rows)
    else:
        model.measuring.versions.shadow_dropped(rows.count)


def _ask(
    model: ServedModel, version: Version, rows: Rows, role: Role, asked: Asked | None
) -> Later[Written]:
    """The version, or what stands in for it. Without anything that does, it is asked though it
    fails: it may not fail on these rows."""
    if not version.health.ask():
        stand_in = _stand_in(model, version)
        if stand_in is not None:
            return _instead(model, stand_in, rows, asked)
    answer = _submit(version, rows, role, asked)
    if version.health.phase is Phase.HALF_OPEN:
        return _or_instead(model, version, rows, asked, answer)
    return answer


def _stand_in(model: ServedModel, version: Version) -> Version | None:
    for other in (model.current, model.previous):
        if (
            other is not None
            and other is not version
            and alike(other.model.spec, version.model.spec)
            and other.health.ask()
        ):
            return other
    return model.default


def _instead(
    model: ServedModel, version: Version, rows: Rows, asked: Asked | None
) -> Later[Written]:
    model.measuring.versions.fell_back(default=version is model.default)
    return _submit(version, rows, Role.FALLBACK, asked)


def _or_instead(
    model: ServedModel,
    version: Version,
    rows: Rows,
    asked: Asked | None,
    trying: Later[Written],
) -> Later[Written]:
    """Nobody pays for the try of a version that fails still."""
    answer: Later[Written] = Later()
    context = copy_context()  # of the request: the try is over in that of a batch

    def settle(done: Later[Written]) -> None:
        error = done.exception()
        if error is None:
            answer.set_result(done.result())
        else:
            answer.set_exception(error)

    def tried(done: Later[Written]) -> None:
        stand_in = _stand_in(model, version)
        if not isinstance(done.exception(), ModelError) or stand_in is None:
            settle(done)
            return
        try:
            instead = context.run(_instead, model, stand_in, rows, asked)
        except HomeostatError as error:  # it is overloaded
            answer.set_exception(error)
        else:
            instead.add_done_callback(settle)

    trying.add_done_callback(tried)
    return answer


def _submit(version: Version, rows: Rows, role: Role, asked: Asked | None) -> Later[Written]:
    rows.role = role
    if role is not Role.CHAMPION:
        asked = asked or NOTHING
    return version.batcher.submit(rows, asked)
