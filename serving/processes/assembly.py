"""What one process serves, put together from its settings."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from homeostat.auth import Meter, load_keys
from homeostat.errors import SettingsError
from homeostat.journal.writer import JournalWriter
from homeostat.metrics import Instruments
from homeostat.records import Task
from homeostat.settings import Settings
from homeostat.settings_of_serving import ServingSettings
from serving.counting.measuring import Measuring
from serving.doors.admin_app import allow_any, make_app
from serving.doors.asgi import Front
from serving.doors.grpc_server import GrpcServer, make_grpc_server
from serving.doors.peers import Peers, check_ready
from serving.processes.open_port import check_port
from serving.sharing.listening import is_loopback
from serving.tracing.tracing import Tracing
from serving.versions.served_model import ServedModel

if TYPE_CHECKING:
    from serving.tracing.exporting import Exporter

OpenJournal = Callable[[Settings], JournalWriter]


class Traces(NamedTuple):
    """Only where they are asked for."""

    tracing: Tracing
    exporter: Exporter


def make_traces(serving: ServingSettings, instruments: Instruments) -> Traces | None:
    """Not started yet. Raises SettingsError."""
    if serving.traces is None:
        return None
    try:
        from serving.tracing.exporting import Exporter
    except ImportError as error:
        raise SettingsError(
            f"OpenTelemetry is not installed ({error}); pip install 'homeostat[otel]'",
            key="serving.traces",
        ) from None
    sent, dropped = (
        instruments.counter("homeostat_traces_total", outcome=outcome)
        for outcome in ("sent", "dropped")
    )
    exporter = Exporter(serving.traces, sent=sent.inc, dropped=dropped.inc)
    # chance is not for secrets here
    tracing = Tracing(serving.traces_share, exporter.put, time.time_ns, random.random)
    return Traces(tracing, exporter)


def make_models(
    projects: Sequence[Settings],
    instruments: Instruments,
    open_journal: OpenJournal,
    meter: Meter | None = None,
    tracing: Tracing | None = None,
    guarded: Collection[int] = (),
) -> dict[str, ServedModel]:
    """The models of some projects, each with a journal of its own; not started yet. `guarded`:
    numbers of the projects that have to have keys. Raises SettingsError."""
    models: dict[str, ServedModel] = {}
    for number, settings in enumerate(projects):
        name = settings.model.name
        if name in models:
            raise SettingsError(f'two projects have a model named "{name}"', key="model.name")
        keys = load_keys(settings.keys_path, meter)
        check_port(projects[0].serving, name, keys, guarded=number in guarded)
        models[name] = ServedModel(
            settings=settings,
            keys=keys,
            journal=open_journal(settings),
            measuring=Measuring(
                instruments,
                name,
                classes=settings.model.task is Task.CLASSIFICATION,
                low_confidence=settings.serving.low_confidence,
            ),
            now_us=lambda: time.time_ns() // 1000,
            tracing=tracing,
        )
    return models


def make_front(
    models: Mapping[str, ServedModel],
    peers: Peers,
    *,
    host: str,
    draining: Callable[[], bool],
    refused: Callable[[int, str], None],
    tracing: Tracing | None = None,
) -> Front:
    ready = partial(check_ready, models, peers, draining)
    app = make_app(
        models, peers, open_to_others=not is_loopback(host), ready=ready, refused=refused
    )
    return Front(models, app, tracing)


def make_grpc(
    models: Mapping[str, ServedModel],
    serving: ServingSettings,
    ready: Callable[[], Awaitable[None]],
    tls: ssl.SSLContext | None,
    tracing: Tracing | None,
    refused: Callable[[int, str], None],
    *,
    shared: bool,
) -> GrpcServer | None:
    if serving.grpc_port is None:
        return None

    def check(authorization: str | None) -> None:
        if not is_loopback(serving.host):
            allow_any(models, authorization)

    return make_grpc_server(
        models,
        serving.host,
        serving.grpc_port,
        arrive_within=serving.arrive_within.total_seconds(),
        check=check,
        ready=ready,
        refused=refused,
        shared=shared,
        tls=tls,
        tracing=tracing,
    )
