"""A registered version -> an entry of the local cache, whole or not at all."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from mlflow.artifacts import download_artifacts

from homeostat.errors import IntegrityError, ModelError, NotReady
from homeostat.jobs import write_atomically
from homeostat.records import ModelSpec, Task, VersionRef, to_json
from homeostat.registry.cache import (
    MODEL_FOLDER,
    SPEC_FILE,
    digest_of,
    entry_path,
    hash_files,
    read_spec,
    verify,
)
from homeostat.registry.signature import spec_of

log = logging.getLogger(__name__)


def cached(cache: Path, model: str, version: str) -> VersionRef | None:
    """The version if the cache has it, unharmed; a harmed entry is removed."""
    entry = entry_path(cache, model, version)
    try:
        digest = digest_of(read_spec(entry))
        verify(entry, digest)
    except NotReady:
        return None
    except IntegrityError as error:
        log.warning("A version is fetched again, because its cache entry was harmed: %s", error)
        shutil.rmtree(entry, ignore_errors=True)
        return None
    return VersionRef(version=version, digest=digest)


def download(
    cache: Path, model: str, version: str, *, uri: str, task: Task, names: tuple[str, ...]
) -> VersionRef:
    """Download beside the entry, then rename: readers never see half of it."""
    entry = entry_path(cache, model, version)
    entry.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(prefix=f".{version}.", dir=entry.parent))
    try:
        spec = _fill(partial, model, version, uri=uri, task=task, names=names)
        try:
            partial.rename(entry)
        except OSError:
            # Another process was first; its entry is as good as ours, if it is whole.
            found = cached(cache, model, version)
            if found is None:
                raise
            return found
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return VersionRef(version=version, digest=digest_of(spec))


def _fill(
    partial: Path, model: str, version: str, *, uri: str, task: Task, names: tuple[str, ...]
) -> ModelSpec:
    folder = partial / MODEL_FOLDER
    try:
        download_artifacts(
            artifact_uri=f"models:/{model}/{version}",
            dst_path=str(folder),
            tracking_uri=uri,
            registry_uri=uri,
        )
    except OSError as error:
        raise ModelError(
            f"the files of version {version} of {model} cannot be downloaded: {error}; they were "
            "removed from MLflow's artifact store, or this machine cannot read it"
        ) from error
    spec = spec_of(folder, model=model, version=version, task=task, names=names)
    spec = replace(spec, files=hash_files(folder))
    write_atomically(partial / SPEC_FILE, to_json(spec))
    return spec
