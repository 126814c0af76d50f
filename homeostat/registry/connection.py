"""Talking to MLflow without its noise, without hanging for minutes, and with our errors."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import mlflow.environment_variables as variables
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from homeostat.errors import NotReady, RegistryRefused, RegistryUnavailable

_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_TOO_MANY_REQUESTS, _SERVER_ERRORS = 429, 500
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 5.0


def connect(tracking_uri: str) -> MlflowClient:
    """A client of its own, beside whatever the process-wide MLflow settings are.

    MLflow takes its patience from the environment only, by default 7 retries of 120 seconds.
    Where the variables are unset, this sets smaller ones for the whole process.
    """
    for variable, value in (
        (variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES, 1),
        (variables.MLFLOW_HTTP_REQUEST_TIMEOUT, 10),
        (variables.MLFLOW_DISABLE_TELEMETRY, True),
        (variables.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR, False),
    ):
        if not variable.is_set():
            variable.set(value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


@contextmanager
def answering(tracking_uri: str) -> Iterator[None]:
    """What is asked inside either answers or raises ours.

    NotReady for what does not exist, RegistryUnavailable where the same call may work later,
    RegistryRefused where only a person can help.
    """
    check_reachable(tracking_uri)
    try:
        yield
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise NotReady(f"MLflow at {shown(tracking_uri)}: {_line(error)}") from error
        # MLflow's own network errors carry no code, which counts as 500.
        status = error.get_http_status_code()
        if status == _TOO_MANY_REQUESTS or status >= _SERVER_ERRORS:
            raise _away(tracking_uri, error) from error
        raise RegistryRefused(
            f"MLflow at {shown(tracking_uri)} refused what was asked: {_line(error)}; "
            "give the user of this process the right to it (MLFLOW_TRACKING_USERNAME, "
            "MLFLOW_TRACKING_TOKEN), or correct [registry] in homeostat.toml"
        ) from error
    except (requests.RequestException, SQLAlchemyError) as error:
        raise _away(tracking_uri, error) from error


def check_reachable(tracking_uri: str) -> None:
    """Raises RegistryUnavailable within seconds; MLflow itself would retry for minutes."""
    parts = urlsplit(tracking_uri)
    scheme = parts.scheme.partition("+")[0]
    try:
        if scheme in ("http", "https"):
            answer = requests.get(
                f"{tracking_uri.rstrip('/')}/health", timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS)
            )
            if answer.status_code in (502, 503, 504):
                raise RegistryUnavailable(
                    f"MLflow at {shown(tracking_uri)} is away: status {answer.status_code}"
                )
        elif scheme in _PORTS and parts.hostname:
            address = (parts.hostname, parts.port or _PORTS[scheme])
            socket.create_connection(address, timeout=_CONNECT_SECONDS).close()
    except requests.exceptions.SSLError:
        return  # somebody is there; MLflow's own settings say which certificates it trusts
    except (requests.RequestException, OSError) as error:
        raise _away(tracking_uri, error) from error


def shown(tracking_uri: str) -> str:
    """The address without the password that may stand in it."""
    parts = urlsplit(tracking_uri)
    if not parts.password:
        return tracking_uri
    return tracking_uri.replace(f":{parts.password}@", ":…@")


def _away(tracking_uri: str, error: Exception) -> RegistryUnavailable:
    return RegistryUnavailable(
        f"MLflow at {shown(tracking_uri)} did not do what was asked: {_line(error)}; "
        "start it, or correct [registry] tracking_uri"
    )


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:500]
