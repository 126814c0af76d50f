"""A registered version -> an entry of the local cache, whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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
    """The version if the cache has it, unharmed."""
    try:
        return _whole(entry_path(cache, model, version))
    except (NotReady, IntegrityError):
        return None


def _whole(entry: Path) -> VersionRef:
    """Raises NotReady or IntegrityError."""
    digest = digest_of(read_spec(entry))
    verify(entry, digest)
    return VersionRef(version=entry.name, digest=digest)


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
    with _one_at_a_time(_lock(entry)):
        try:
            return _whole(entry)  # another process was first
        except NotReady:
            pass
        except IntegrityError as error:
            log.warning("A version is fetched again, as its cache entry was harmed: %s", error)
            shutil.rmtree(entry, ignore_errors=True)
        partial = entry.with_name(f".{version}")
        shutil.rmtree(partial, ignore_errors=True)
        _clear_away_others(partial)
        try:
            folder = partial / MODEL_FOLDER
            folder.mkdir(parents=True)
            _download_files(client, model, version, folder)
            spec = spec_of(folder, model=model, version=version, task=task, names=names)
            spec = replace(spec, files=hash_files(folder))
            write_atomically(partial / SPEC_FILE, to_json(spec))
            partial.rename(entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return VersionRef(version=version, digest=digest_of(spec))


def _lock(entry: Path) -> Path:
    return entry.parent.with_name(f".{entry.parent.name}.{entry.name}.lock")


@contextlib.contextmanager
def _one_at_a_time(lock: Path, *, wait: bool = True) -> Iterator[None]:
    """Workers of a server, and the loop, ask for the same version at once: the others find it in
    the cache. Raises BlockingIOError where it should not wait, and would have to."""
    with lock.open("w") as file:
        # ends with the process, however that ends
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _clear_away_others(partial: Path) -> None:
    """Of other versions, what fetches left that were killed; nobody may ask for those again."""
    for left in set(partial.parent.glob(".*/")) - {partial}:
        lock = _lock(left.with_name(left.name.removeprefix(".")))
        with contextlib.suppress(BlockingIOError), _one_at_a_time(lock, wait=False):
            shutil.rmtree(left, ignore_errors=True)


def _download_files(client: MlflowClient, model: str, version: str, folder: Path) -> None:
    """From where the version's files lie, and not by its name: MLflow would look that up in the
    process-wide registry, which is none of ours to set."""
    location = client.get_model_version_download_uri(model, version)
    if location.startswith("models:/m-"):
        location = client.get_logged_model(location.removeprefix("models:/")).artifact_location
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
