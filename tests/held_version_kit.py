"""A version that takes as long to load as a test wants: one of its files is a pipe, and what reads
it, to verify it first, waits for somebody who writes."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace

from serving_kit import MODEL, add_version

from homeostat.records import ModelSpec, VersionRef, from_json, to_json
from homeostat.registry.cache import SPEC_FILE, digest_of, entry_path, model_folder
from homeostat.settings import Settings

PIPE = "held"


def add_held(settings: Settings, version: int) -> VersionRef:
    """Put it into the project's cache."""
    add_version(settings, version, runtime="onnx")
    entry = entry_path(settings.cache_path, MODEL, str(version))
    os.mkfifo(model_folder(entry) / PIPE)
    spec = from_json((entry / SPEC_FILE).read_bytes(), ModelSpec)
    files = {**spec.files, PIPE: hashlib.sha256().hexdigest()}
    spec = replace(spec, files=files)
    (entry / SPEC_FILE).write_bytes(to_json(spec))
    return VersionRef(version=str(version), digest=digest_of(spec))


def let_it_load(settings: Settings, ref: VersionRef) -> None:
    """All that wait for it just now; those who come later wait again."""
    pipe = model_folder(entry_path(settings.cache_path, MODEL, ref.version)) / PIPE
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:  # nobody waits
            raise
