"""A registered version -> an entry of the local cache, whole or not at all."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from homeostat.errors import IntegrityError, ModelError, NotReady
from homeostat.jobs import write_atomically
from homeostat.records import Task, VersionRef, to_json
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
    client: MlflowClient,
    cache: Path,
    model: str,
    version: str,
    *,
    task: Task,
    names: tuple[str, ...],
) -> VersionRef:
    """Download beside the entry, then rename: readers never see half of it."""
    entry = entry_path(cache, model, version)
    entry.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(prefix=f".{version}.", dir=entry.parent))
    try:
        folder = partial / MODEL_FOLDER
        _download_files(client, model, version, folder)
        spec = spec_of(folder, model=model, version=version, task=task, names=names)
        spec = replace(spec, files=hash_files(folder))
        write_atomically(partial / SPEC_FILE, to_json(spec))
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


def _download_files(client: MlflowClient, model: str, version: str, folder: Path) -> None:
    """From where the version's files lie, and not by its name: MLflow would look that up in the
    process-wide registry, which is none of ours to set."""
    location = client.get_model_version_download_uri(model, version)
    if location.startswith("models:/m-"):
        location = client.get_logged_model(location.removeprefix("models:/")).artifact_location
    folder.mkdir()
    try:
        download_artifacts(
            artifact_uri=location,
            dst_path=str(folder),
            tracking_uri=client.tracking_uri,
            registry_uri=client.tracking_uri,
        )
    except OSError as error:
        raise ModelError(
            f"the files of version {version} of {model} cannot be downloaded from {location}: "
            f"{error}; they were removed, or this machine cannot read them"
        ) from error
    _lift(folder)


def _lift(folder: Path) -> None:
    """MLflow keeps the last folder of the address: move what is in it up to where it belongs."""
    inside = list(folder.iterdir())
    if len(inside) == 1 and inside[0].is_dir() and not (folder / "MLmodel").exists():
        aside = inside[0].rename(folder.with_name(f"{folder.name}.inner"))
        folder.rmdir()
        aside.rename(folder)
