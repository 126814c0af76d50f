"""Puts the dashboards into a running Grafana by its HTTP API. The only module on grafana-api.

What people made is safe: only dashboards with our tag are changed or deleted, and one that somebody
saved between our reading and our writing is read again first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from grafana_api.grafana_api import GrafanaException, GrafanaServerError
from grafana_api.grafana_face import GrafanaFace

from dashboards.export import FOLDER_UID
from dashboards.provisioned_files import TAG, dashboards
from homeostat import __version__
from homeostat.errors import AuthError, Conflict, HomeostatError, SettingsError, Unavailable

FOLDER_TITLE = "Homeostat"
SERVERS_OWN = ("id", "version")  # keys that Grafana sets
MOST = 5000  # of one answer to a search

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Change:
    """What was done to one dashboard, or would be in a dry run."""

    uid: str
    title: str
    action: str  # created, updated, unchanged, deleted, stale, not_ours

    def __str__(self) -> str:
        return f"{self.action:9}  {self.uid}  {self.title}"


def sync(url: str, token: str, *, dry_run: bool, prune: bool) -> list[Change]:
    """Make Grafana's dashboards what the package ships.

    With `prune`, ours that are shipped no more are deleted; without, they are reported as stale.
    Raises AuthError (the token), Unavailable (Grafana is away) or Conflict.
    """
    grafana = _Grafana(url, token)
    if not dry_run:
        grafana.make_folder()
    wanted = dashboards()
    changes = [grafana.put(dashboard, dry_run=dry_run) for dashboard in wanted]
    shipped = {dashboard["uid"] for dashboard in wanted}
    for found in grafana.tagged():
        if found["uid"] not in shipped:
            if prune and not dry_run:
                grafana.delete(found["uid"])
            action = "deleted" if prune else "stale"
            changes.append(Change(uid=found["uid"], title=found["title"], action=action))
    return changes


class _Grafana:
    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f'"{url}" is not the address of a Grafana server')
        prefix = parts.path.strip("/")
        self.name = f"Grafana at {parts.scheme}://{parts.hostname}"
        self.api = GrafanaFace(
            auth=token,
            host=f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname,
            port=parts.port,
            url_path_prefix=f"{prefix}/" if prefix else "",
            protocol=parts.scheme,
            timeout=10.0,
        )

    def make_folder(self) -> None:
        if self._found(lambda: self.api.folder.get_folder(FOLDER_UID)) is None:
            try:
                self._call(lambda: self.api.folder.create_folder(FOLDER_TITLE, FOLDER_UID))
            except Conflict:
                return  # somebody else made it meanwhile

    def put(self, wanted: dict[str, Any], *, dry_run: bool) -> Change:
        try:
            return self._put(wanted, dry_run=dry_run)
        except Conflict:  # saved by somebody between our reading and our writing: look again
            return self._put(wanted, dry_run=dry_run)

    def _put(self, wanted: dict[str, Any], *, dry_run: bool) -> Change:
        uid = wanted["uid"]
        answer = self._found(lambda: self.api.dashboard.get_dashboard(uid))
        there = answer["dashboard"] if answer else None
        if there is not None and TAG not in there.get("tags", ()):
            return Change(uid=uid, title=there.get("title", ""), action="not_ours")
        if there is not None and _content(there) == _content(wanted):
            return Change(uid=uid, title=wanted["title"], action="unchanged")
        if not dry_run:
            version = {"version": there["version"]} if there is not None else {}
            body = {
                "dashboard": {**_content(wanted), "id": None, **version},
                "folderUid": FOLDER_UID,
                "message": f"homeostat {__version__}",
                "overwrite": False,
            }
            self._call(lambda: self.api.dashboard.update_dashboard(body))
        action = "updated" if there is not None else "created"
        return Change(uid=uid, title=wanted["title"], action=action)

    def tagged(self) -> list[dict[str, Any]]:
        search = self.api.search.search_dashboards
        found = self._call(lambda: search(tag=TAG, type_="dash-db", limit=MOST))
        return [entry for entry in found if TAG in entry.get("tags", ())]

    def delete(self, uid: str) -> None:
        self._found(lambda: self.api.dashboard.delete_dashboard(uid))

    def _found(self, ask: Callable[[], T]) -> T | None:
        try:
            return self._call(ask)
        except KeyError:
            return None

    def _call(self, ask: Callable[[], T]) -> T:
        """Grafana's answers in our errors; KeyError for a 404."""
        try:
            return ask()
        except GrafanaServerError as error:
            raise Unavailable(f"{self.name} failed: {error.message}; try again later") from None
        except GrafanaException as error:
            raise self._refused(error) from None
        except requests.exceptions.JSONDecodeError:
            raise HomeostatError(
                f"{self.name} did not answer in JSON: is the address Grafana's own?"
            ) from None
        except requests.exceptions.RequestException as error:
            raise Unavailable(f"{self.name} does not answer: {type(error).__name__}") from None

    def _refused(self, error: GrafanaException) -> Exception:
        status = error.status_code
        if status == 404:
            return KeyError(status)
        if status in (401, 403):
            return AuthError(
                f"{self.name} refuses the token: {error.message}; it needs a service account that "
                "may write folders and dashboards",
                status=status,
            )
        if status in (409, 412):
            return Conflict(f"{self.name}: {error.message}")
        return HomeostatError(f"{self.name} refused: {error.message}")


def _content(dashboard: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in dashboard.items() if key not in SERVERS_OWN}
