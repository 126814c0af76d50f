"""What a user's program imports to predict and to send labels."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

import httpx

from homeostat.errors import AuthError, HomeostatError, InputError, ModelError, Unavailable

RETRIES = 4
FIRST_PAUSE = 0.2  # seconds; doubled at each further try


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """One entry a row; `ids` are what labels refer to."""

    model: str
    version: str
    ids: tuple[str, ...]
    predictions: tuple[Any, ...]
    probabilities: tuple[tuple[float, ...], ...] | None = None
    classes: tuple[str, ...] | None = None


class Client:
    """Talks to one model of a model server. Thread-safe; close it, or use `with`.

    Errors are homeostat.errors': InputError names the row and field, Unavailable means that the
    same call may work later.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        model: str | None = None,
        timeout: float = 30.0,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        """`model` is needed where the server has several. `verify`: for a certificate of your own,
        `ssl.create_default_context(cafile="certificate.pem")`."""
        self._prefix = f"/models/{model}" if model else ""
        self._model = model
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, verify=verify)

    def predict(
        self,
        rows: Sequence[Sequence[Any] | Mapping[str, Any]],
        ids: Sequence[str] | None = None,
        keys: Sequence[str | None] | None = None,
    ) -> Predictions:
        """One id and one key a row; a key says whom or what the row is about (a user, a device).

        Not repeated by itself: each call logs its rows.
        """
        body: dict[str, Any] = {"rows": rows}
        if ids is not None:
            body["ids"] = list(ids)
        if keys is not None:
            body["keys"] = list(keys)
        answer = self._post(f"{self._prefix}/predict", body)
        probabilities, classes = answer.get("probabilities"), answer.get("classes")
        return Predictions(
            model=answer["model"],
            version=answer["version"],
            ids=tuple(answer["ids"]),
            predictions=tuple(answer["predictions"]),
            probabilities=probabilities and tuple(tuple(row) for row in probabilities),
            classes=classes and tuple(classes),
        )

    def label(
        self,
        prediction_id: str,
        value: str | float | bool,
        *,
        name: str = "label",
        source: str = "",
        time: datetime | None = None,
    ) -> None:
        """Say what was true of one prediction; stored durably when this returns."""
        entry: dict[str, Any] = {"id": prediction_id, "value": value, "name": name}
        if source:
            entry["source"] = source
        if time is not None:
            entry["time"] = time.isoformat()
        self.labels([entry])

    def labels(self, labels: Sequence[Mapping[str, Any]]) -> int:
        """Many at once, each with id and value, if need be name, source and time; at most 100,000,
        and no more than the server's `serving.max_body`.

        Tried again with the same content while the server is away: a label that arrives twice
        counts once.
        """
        body = {"labels": [dict(label) for label in labels]}
        pause = FIRST_PAUSE
        for attempt in range(RETRIES + 1):
            try:
                return int(self._post(f"{self._prefix}/labels", body)["stored"])
            except Unavailable:
                if attempt == RETRIES:
                    raise
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    def ready(self) -> bool:
        """Whether every model of the server has a version that serves."""
        try:
            return self._http.get("/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def models(self) -> list[dict[str, Any]]:
        """Names and versions, as GET /models tells them."""
        models: list[dict[str, Any]] = self._request("GET", "/models")["models"]
        return models

    def flush(self) -> None:
        """Everything predicted so far is in the journal's tables when this returns."""
        name = self._model or self.models()[0]["name"]
        self._post(f"/models/{name}/flush", {})

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._request("POST", path, body)

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise Unavailable(f"{self._http.base_url} does not answer: {error}") from error
        if response.status_code != httpx.codes.OK:
            raise _error_of(response)
        answer: dict[str, Any] = response.json()
        return answer


def _error_of(response: httpx.Response) -> HomeostatError:
    try:
        problem = response.json()
        detail = f"{problem['detail']} (status {response.status_code})"
    except (ValueError, KeyError, TypeError):
        problem, detail = {}, f"status {response.status_code}: {response.text[:200]}"
    match response.status_code:
        case 401 | 403:
            return AuthError(detail, status=response.status_code)
        case 400 | 413 | 422:
            return InputError(detail, row=problem.get("row"), field=problem.get("field"))
        case 502 | 503 | 504:
            return Unavailable(detail)
        case 500 if str(problem.get("type", "")).endswith(":model-failed"):
            return ModelError(detail)
        case _:
            return HomeostatError(detail)
