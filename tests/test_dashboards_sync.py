"""Dashboards are put into Grafana by its documented HTTP API, and people's own are left alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dashboards.grafana_sync import sync
from dashboards.provisioned_files import TAG, dashboards
from homeostat.errors import AuthError, Conflict, HomeostatError, SettingsError, Unavailable

TOKEN = "glsa_a-token"
Answer = tuple[int, Any]


@dataclass
class Grafana:
    """The part of Grafana's HTTP API that sync uses, by its documentation, in memory."""

    folders: dict[str, str] = field(default_factory=dict)
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    saved_by_others: int = 0  # so many of the next writes find a newer version
    broken: Answer | None = None
    url: str = ""

    def answer(self, method: str, target: str, token: str | None, body: Any) -> Answer:
        parts = urlsplit(target)
        if self.broken:
            return self.broken
        if token != f"Bearer {TOKEN}":
            return 401, {"message": "Invalid API key"}
        if method != "GET":
            self.writes.append(f"{method} {parts.path}")
        return self._route(method, parts.path.removeprefix("/grafana/api/"), parts.query, body)

    def _route(self, method: str, path: str, query: str, body: Any) -> Answer:
        answer: Answer = (404, {"message": f"no route {method} {path}"})
        match (method, path.split("/")):
            case "GET", ["folders", uid]:
                answer = self._found(self.folders.get(uid) and {"uid": uid}, "folder not found")
            case "POST", ["folders"]:
                answer = self._make_folder(body)
            case "GET", ["dashboards", "uid", uid]:
                there = self.stored.get(uid)
                answer = self._found(there and {"dashboard": there, "meta": {}}, "not found")
            case "POST", ["dashboards", "db"]:
                answer = self._save(body)
            case "DELETE", ["dashboards", "uid", uid]:
                answer = self._found(self.stored.pop(uid, None), "Dashboard not found")
            case "GET", ["search"]:
                answer = 200, self._search(parse_qs(query))
        return answer

    def _make_folder(self, body: dict[str, Any]) -> Answer:
        if body["uid"] in self.folders:
            return 412, {"message": "the folder has been changed by someone else"}
        self.folders[body["uid"]] = body["title"]
        return 200, {"uid": body["uid"]}

    def _found(self, value: Any, message: str) -> Answer:
        return (200, value) if value else (404, {"message": message})

    def _save(self, body: dict[str, Any]) -> Answer:
        dashboard, uid = body["dashboard"], body["dashboard"]["uid"]
        if body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found"}
        there = self.stored.get(uid)
        if there and self.saved_by_others:
            self.saved_by_others -= 1
            there["version"] += 1
        if there and not body["overwrite"] and dashboard.get("version") != there["version"]:
            return 412, {"status": "version-mismatch", "message": "changed by someone else"}
        version = there["version"] + 1 if there else 1
        self.stored[uid] = {**dashboard, "id": 7 + len(self.stored), "version": version}
        return 200, {"status": "success", "uid": uid, "version": version}

    def _search(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        assert query["type"] == ["dash-db"]
        return [
            {"uid": d["uid"], "title": d["title"], "tags": d["tags"], "type": "dash-db"}
            for d in self.stored.values()
            if query["tag"][0] in d["tags"]
        ]


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    grafana = Grafana()

    class Handler(BaseHTTPRequestHandler):
        def do_any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length) or b"null")
            token = self.headers.get("authorization")
            status, answer = grafana.answer(self.command, self.path, token, body)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    grafana.url = f"http://127.0.0.1:{server.server_port}/grafana/"
    yield grafana
    server.shutdown()
    server.server_close()


def actions(grafana: Grafana, *, dry_run: bool = False, prune: bool = False) -> dict[str, str]:
    return {c.uid: c.action for c in sync(grafana.url, TOKEN, dry_run=dry_run, prune=prune)}


def test_what_is_shipped_is_created_once(grafana: Grafana) -> None:
    """Folder and dashboards come to be; a second time there is nothing to do."""
    assert actions(grafana) == {d["uid"]: "created" for d in dashboards()}
    assert grafana.folders == {"homeostat": "Homeostat"}
    stored = grafana.stored["homeostat-overview"]
    assert stored["panels"] == dashboards()[0]["panels"]
    grafana.writes.clear()
    assert actions(grafana) == {d["uid"]: "unchanged" for d in dashboards()}
    assert grafana.writes == []


def test_a_changed_dashboard_is_put_right(grafana: Grafana) -> None:
    """Somebody's edit of ours is undone."""
    actions(grafana)
    grafana.stored["homeostat-overview"]["panels"] = []
    assert actions(grafana)["homeostat-overview"] == "updated"
    assert grafana.stored["homeostat-overview"]["panels"] == dashboards()[0]["panels"]
    assert grafana.stored["homeostat-overview"]["version"] == 2


def test_a_dry_run_writes_nothing(grafana: Grafana) -> None:
    """It tells what would be done."""
    assert actions(grafana, dry_run=True)["homeostat-overview"] == "created"
    assert (grafana.writes, grafana.stored) == ([], {})
    grafana.stored["homeostat-old"] = {"uid": "homeostat-old", "title": "Old", "tags": [TAG]}
    assert actions(grafana, dry_run=True, prune=True)["homeostat-old"] == "deleted"
    assert "homeostat-old" in grafana.stored


def test_only_ours_are_pruned(grafana: Grafana) -> None:
    """A stale one of ours goes when asked; a person's own stays, whatever its tags."""
    for uid, tags in (("homeostat-old", [TAG]), ("mine", ["homeostat"])):
        grafana.stored[uid] = {"uid": uid, "title": uid, "tags": tags, "version": 1}
    assert actions(grafana)["homeostat-old"] == "stale"
    assert "homeostat-old" in grafana.stored
    told = actions(grafana, prune=True)
    assert told["homeostat-old"] == "deleted"
    assert "mine" not in told
    assert set(grafana.stored) == {"mine", *(d["uid"] for d in dashboards())}


def test_a_persons_dashboard_under_our_uid_is_left_alone(grafana: Grafana) -> None:
    """Without our tag it is not ours to overwrite."""
    uid = "homeostat-overview"
    mine = {"uid": uid, "title": "My copy", "tags": ["mine"], "version": 3}
    grafana.stored[uid] = dict(mine)
    assert actions(grafana)[uid] == "not_ours"
    assert grafana.stored[uid] == mine


def test_one_saved_meanwhile_is_read_again(grafana: Grafana) -> None:
    """A 412 is tried once more on the newer version; twice is a conflict."""
    actions(grafana)
    grafana.stored["homeostat-overview"]["panels"] = []
    grafana.saved_by_others = 1
    assert actions(grafana)["homeostat-overview"] == "updated"
    grafana.stored["homeostat-overview"]["panels"] = []
    grafana.saved_by_others = 2
    with pytest.raises(Conflict, match="someone else"):
        actions(grafana)


def test_a_wrong_token_is_told_without_showing_it(grafana: Grafana) -> None:
    """And what kind of token it takes."""
    with pytest.raises(AuthError, match="service account") as raised:
        sync(grafana.url, "glsa_wrong", dry_run=True, prune=False)
    assert raised.value.status == 401
    assert "glsa_wrong" not in str(raised.value)


def test_grafana_away_or_broken_is_told(grafana: Grafana) -> None:
    """Nobody there, a failure of its own, a page instead of JSON, no address."""
    grafana.broken = (503, {"message": "database is locked"})
    with pytest.raises(Unavailable, match="database is locked"):
        actions(grafana)
    grafana.broken = (200, b"<html>Log in</html>")
    with pytest.raises(HomeostatError, match="JSON"):
        actions(grafana)
    grafana.broken = (400, {"message": "Cannot save provisioned dashboard"})
    with pytest.raises(HomeostatError, match="Cannot save provisioned dashboard"):
        actions(grafana)
    with pytest.raises(Unavailable, match="does not answer"):
        sync("http://127.0.0.1:1", TOKEN, dry_run=True, prune=False)
    with pytest.raises(SettingsError):
        sync("grafana:3000", TOKEN, dry_run=True, prune=False)
