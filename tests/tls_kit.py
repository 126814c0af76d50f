"""A certificate for a server on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(folder: Path, name: str) -> None:
    """Signed by itself, for loopback."""
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem -subj"
    )
    subprocess.run([*command.split(), f"/CN={name}"], cwd=folder, check=True, capture_output=True)
