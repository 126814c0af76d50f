"""The local cache of versions: all a server needs, so that it starts with MLflow away.

An entry is a folder CACHE/MODEL/VERSION with homeostat.json (the ModelSpec, which holds the hash
of every file) and model/ (the files as MLflow keeps them). It appears whole or not at all.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from homeostat.errors import IntegrityError, NotReady
from homeostat.records import ModelSpec, from_json

SPEC_FILE = "homeostat.json"
MODEL_FOLDER = "model"


def entry_path(cache: Path, model: str, version: str) -> Path:
    for name in (model, version):
        if not name or name in (".", "..") or "/" in name or "\\" in name:
            raise ValueError(f'"{name}" cannot name a folder of the cache')
    return cache / model / version


def model_folder(entry: Path) -> Path:
    """The model's files, as MLflow keeps them."""
    return entry / MODEL_FOLDER


def read_spec(entry: Path) -> ModelSpec:
    """Raises NotReady where the version has not been fetched."""
    try:
        return from_json((entry / SPEC_FILE).read_bytes(), ModelSpec)
    except FileNotFoundError:
        raise NotReady(
            f"{entry} is not in the cache; fetch it with "
            f"`python -m homeostat.registry fetch --project DIR --version {entry.name}`"
        ) from None
    except msgspec.DecodeError as error:
        raise _broken(entry, f"{SPEC_FILE} cannot be read ({error})") from None


def digest_of(spec: ModelSpec) -> str:
    """One hash over a version's name and its files' hashes: what a registry cannot change unseen.

    Not over the rest of the spec: that is derived, from the files and from settings that may
    change, and a version fetched again must have the digest it had. So homeostat.json itself, a
    local file as the settings are, is not protected beyond what it says of the files.
    """
    covered = {"model": spec.model, "version": spec.version, "files": spec.files}
    return hashlib.sha256(msgspec.json.encode(covered, order="sorted")).hexdigest()


def verify(entry: Path, digest: str) -> ModelSpec:
    """Hash every file again; the spec when all is as `digest` says, IntegrityError otherwise."""
    spec = read_spec(entry)
    if digest_of(spec) != digest:
        raise _broken(entry, "its files are not those whose digest was recorded")
    found = hash_files(model_folder(entry))
    for name in sorted(found.keys() | spec.files.keys()):
        if name not in found:
            raise _broken(entry, f"{name} is missing")
        if name not in spec.files:
            raise _broken(entry, f"{name} does not belong to the version")
        if found[name] != spec.files[name]:
            raise _broken(entry, f"{name} was changed")
    return spec


def hash_files(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, by relative path."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _broken(entry: Path, what: str) -> IntegrityError:
    return IntegrityError(f"{entry}: {what}; remove this folder and fetch the version again")
