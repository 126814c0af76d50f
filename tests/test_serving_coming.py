"""While nothing serves, those who ask are told why, and whoever looks into the log what to do."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from held_version_kit import add_held, let_it_load
from serving_kit import PATIENCE, make_project, publish, running

from homeostat.records import VersionRef

ROWS = [[1.0, 2.0, 3.0, 4.0]]
MISSING = VersionRef(version="77", digest="0" * 64)  # in no cache


def test_what_is_promoted_is_told_until_it_serves(tmp_path: Path) -> None:
    """Nothing promoted, then a version whose fetch hangs, then one that is being loaded: each is
    told to whoever asks for readiness or a prediction, and in the log."""
    with socket.create_server(("127.0.0.1", 0)) as mlflow:  # takes the question, and says nothing
        mlflow.settimeout(PATIENCE)
        url = f"http://127.0.0.1:{mlflow.getsockname()[1]}"
        project = make_project(
            tmp_path, f'[serving]\npoll = "50ms"\n[registry]\ntracking_uri = "{url}"\n'
        )
        held = add_held(project, 1)
        with running(tmp_path, wait=False) as server:

            def why() -> str:
                answer = server.http.get("/health/ready")
                assert answer.status_code == 503
                return str(answer.json()["detail"])

            def ready() -> bool:
                let_it_load(project, held)  # the load may have come to the file only just now
                return server.http.get("/health/ready").status_code == 200

            assert why() == "no version of shapes serves: no version was promoted yet"
            assert "`homeostat loop`" in server.log.read_text()
            publish(project, MISSING, epoch=1)
            fetched = re.compile(r"version 77 was promoted and is being fetched, for \d+ s$")
            server.wait_for(lambda: fetched.search(why()))
            publish(project, held, epoch=2)
            loaded = re.compile(r"version 1 was promoted and is being loaded, for \d+ s$")
            server.wait_for(lambda: loaded.search(why()))
            refused = server.predict(ROWS)
            assert refused.status_code == 503
            assert "version 1 was promoted and is being loaded" in refused.json()["detail"]
            server.wait_for(ready)
            assert server.predict(ROWS).json()["version"] == "1"
            server.wait_for(lambda: "ready in" in server.log.read_text())
            log = server.log.read_text()
            said = ("77 is being fetched", "1 is being loaded", "1 serves", "ready in")
            places = [log.index(each) for each in said]
            assert places == sorted(places)
