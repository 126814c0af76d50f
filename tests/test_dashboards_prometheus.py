"""Every query of every dashboard finds data in a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from dashboards.finishing import expressions
from dashboards.lint import filled
from dashboards.provisioned_files import dashboards
from homeostat.metric import Metric
from homeostat.metrics import METRICS, Instruments

pytestmark = pytest.mark.daemon

SAMPLES = {"model": "shop", "code": "200", "column": "brightness", "method": "wasserstein"}
VALUES = {"model": "shop", "__rate_interval": "10s", "__range": "30s", "__interval": "1s"}
DEADLINE = 60


class Platform:
    """A server and a loop, as far as Prometheus sees them; busier with every look."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        owners = {metric.owner for metric in METRICS}
        self.instruments = {owner: Instruments(owner, self.registry) for owner in owners}
        for instruments in self.instruments.values():
            instruments.begin("shop")
        self.looks = 0

    def look(self) -> bytes:
        self.looks += 1
        for metric in METRICS:
            for labels in self._labels(metric):
                self._move(metric, labels)
        return generate_latest(self.registry)

    def _labels(self, metric: Metric) -> list[dict[str, str]]:
        if not metric.labels:
            return [{}]
        common = {label: SAMPLES.get(label, "some") for label in metric.labels}
        last = metric.labels[-1]
        if metric.name == "homeostat_requests_total":
            return [common | {"code": code} for code in ("200", "422", "500")]
        return [common | {last: value} for value in metric.values] or [common]

    def _move(self, metric: Metric, labels: dict[str, str]) -> None:
        instruments = self.instruments[metric.owner]
        if metric.kind == "counter":
            instruments.counter(metric.name, **labels).inc(2)
        elif metric.kind == "histogram":
            instruments.histogram(metric.name, **labels).observe(metric.buckets[3])
        else:
            instruments.gauge(metric.name, **labels).set(self.looks)


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        url = f"{self.url}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
            return json.load(answer)["data"]

    def series(self, expression: str) -> list[Any]:
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def looks(self) -> int:
        """How often it has looked at the platform of late."""
        try:
            [counted] = self.series("count_over_time(homeostat_paused[1m])") or [None]
        except urllib.error.HTTPError as error:
            if error.code != 503:  # it listens before it answers
                raise
            return 0
        return 0 if counted is None else int(float(counted["value"][1]))


@pytest.fixture(scope="module")
def platform() -> Iterator[int]:
    shown = Platform()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = shown.look()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def prometheus(platform: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 250ms, scrape_timeout: 250ms}\n"
        "scrape_configs:\n  - job_name: homeostat\n    static_configs:\n"
        f"      - targets: ['127.0.0.1:{platform}']\n"
    )
    child = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            "--web.listen-address=127.0.0.1:0",
        ],
        stderr=(folder / "log").open("wb"),
    )
    try:
        yield ready(folder / "log")
    finally:
        child.terminate()
        child.wait(DEADLINE)


def ready(log: Path) -> Prometheus:
    """Wait until it listens and has looked at the platform often enough for a rate."""
    deadline = time.monotonic() + DEADLINE
    prometheus = None
    while time.monotonic() < deadline:
        if prometheus is None:
            found = re.search(r'"Listening on" address=(\S+)', log.read_text())
            prometheus = Prometheus(f"http://{found[1]}") if found else None
        elif prometheus.looks() >= 6:
            return prometheus
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda d: d["uid"])
def test_every_panel_has_data(prometheus: Prometheus, dashboard: dict[str, Any]) -> None:
    """Each query, with Grafana's variables filled in, gives at least one series."""
    empty = [(place, filled(query, VALUES)) for place, query in expressions(dashboard)]
    deadline = time.monotonic() + DEADLINE
    while empty and time.monotonic() < deadline:
        # after a look that the machine held up, what is shown is missing until the next one
        empty = [(place, query) for place, query in empty if not prometheus.series(query)]
        time.sleep(0.2 if empty else 0)
    assert empty == []
    assert prometheus.series(filled('homeostat_paused{model="other"}', VALUES)) == []


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda d: d["uid"])
def test_the_model_variable_finds_the_model(
    prometheus: Prometheus, dashboard: dict[str, Any]
) -> None:
    """What Grafana would ask for label_values(selector, label) lists the models."""
    [variable] = [v for v in dashboard["templating"]["list"] if v["type"] == "query"]
    match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
    assert match
    values = prometheus.ask(f"label/{match[2]}/values", **{"match[]": match[1]})
    assert values == ["shop"]


def test_error_ratio_is_the_share_of_5xx(prometheus: Prometheus) -> None:
    """Of three statuses that grow alike, one is the server's fault."""
    [panel] = [p for d in dashboards() for p in d["panels"] if p["title"] == "Server errors"]
    [series] = prometheus.series(filled(panel["targets"][0]["expr"], VALUES))
    assert float(series["value"][1]) == pytest.approx(1 / 3, abs=0.02)
