"""HTTPS by the server's own connection, and a certificate that is read again."""

from __future__ import annotations

import signal
import socket
import ssl
from pathlib import Path

import httpx
import psutil
import pytest
from serving_kit import PATIENCE, add_version, make_project, publish, running
from tls_kit import make_certificate

from homeostat.client import Client
from homeostat.errors import SettingsError
from homeostat.settings import Settings, load
from loop.server_door import flush_journal

ROW = [1.0, 2.0, 3.0, 4.0]
TLS = '[serving]\ntls_certificate = "certificate.pem"\ntls_key = "key.pem"\n'


def shown(url: str) -> bytes:
    """The certificate that a new connection gets."""
    host, _, port = url.removeprefix("https://").rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, int(port)), PATIENCE) as plain,
        context.wrap_socket(plain) as wrapped,
    ):
        found = wrapped.getpeercert(binary_form=True)
    assert found is not None
    return found


def in_file(folder: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert((folder / "certificate.pem").read_text())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    make_certificate(tmp_path, "first")
    settings = make_project(tmp_path, TLS)
    publish(settings, add_version(settings, 1, runtime="onnx"), epoch=1)
    return settings


@pytest.mark.parametrize("workers", ["1", "2"])
def test_predictions_by_https(settings: Settings, workers: str) -> None:
    """Who trusts the certificate is answered; who speaks plainly is not; SIGHUP shows a new one to
    new connections, and one that is broken changes nothing and ends no worker."""
    folder = settings.project
    environ = {"HOMEOSTAT_SERVING_WORKERS": workers}
    with running(folder, wait=False, environ=environ) as server:
        assert server.url.startswith("https://")
        context = ssl.create_default_context(cafile=folder / "certificate.pem")
        with httpx.Client(base_url=server.url, verify=context, timeout=PATIENCE) as http:
            server.wait_for(lambda: http.get("/health/ready").status_code == 200)
            answer = http.post("/predict", json={"rows": [ROW] * 200})
            assert len(answer.raise_for_status().json()["predictions"]) == 200
            assert http.post("/predict", json={"rows": []}).status_code == 422
        with Client(server.url, verify=context) as client:
            assert client.predict([ROW]).version == "1"
        with pytest.raises(httpx.ConnectError):
            httpx.post(f"{server.url}/predict", json={"rows": [ROW]}, timeout=PATIENCE)
        plain = server.url.replace("https", "http")
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{plain}/predict", json={"rows": [ROW]}, timeout=PATIENCE)
        server.wait_for(lambda: flush_journal(settings))  # the loop asks its own server
        assert shown(server.url) == in_file(folder)

        make_certificate(folder, "second")
        server.process.send_signal(signal.SIGHUP)
        told = "keys and certificate are read again" if workers == "1" else ".supervisor: reloaded"
        # who connects before may meet a worker that goes
        server.wait_for(lambda: told in server.log.read_text())
        assert shown(server.url) == in_file(folder)
        before, processes = in_file(folder), psutil.Process(server.process.pid).children()
        (folder / "key.pem").write_text("no key")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for(lambda: "are not a certificate and its key" in server.log.read_text())
        assert shown(server.url) == before
        assert psutil.Process(server.process.pid).children() == processes
        assert server.stop() == 0
        said = server.log.read_text()
        assert said.count("keys and certificate are read again") == (workers == "1")
        assert "the certificate before is kept" in said or workers == "2"


@pytest.mark.parametrize("given", ["tls_certificate", "tls_key"])
def test_half_a_pair_is_refused(tmp_path: Path, given: str) -> None:
    """Both or none; the error names the one that is missing."""
    make_project(tmp_path)
    file = tmp_path / "homeostat.toml"
    file.write_text(file.read_text() + f'[serving]\n{given} = "x.pem"\n')
    missing = {"tls_certificate": "tls_key", "tls_key": "tls_certificate"}[given]
    with pytest.raises(SettingsError, match=f"serving.{missing}: missing"):
        load(tmp_path, {})
