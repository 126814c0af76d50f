"""A project with everything a backup takes, made without training anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from journal_kit import EVER, NOON, PIXELS, ids_of, label, open_writer, tensor_rows

from homeostat import events as types
from homeostat.journal.reader import Journal
from homeostat.journal.writer import JournalWriter
from homeostat.records import ModelSpec, Rollout, Task, VersionRef, to_json
from homeostat.registry.cache import SPEC_FILE, digest_of, entry_path, hash_files, model_folder
from homeostat.settings import Settings, load
from homeostat.state import checks, events, rollouts
from homeostat.state.store import open_state

MODEL = "digits"
REFERENCE = "runs/run-1/reference.parquet"


def project(folder: Path, more: str = "", *, model: str = MODEL) -> Settings:
    """Only its homeostat.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    text = f'home = "home"\n[model]\nname = "{model}"\n{more}'
    (folder / "homeostat.toml").write_text(text)
    return load(folder, {})


def full_project(folder: Path, more: str = "") -> Settings:
    """A version that serves, its reference, a run's files, keys, checks and events."""
    settings = project(folder, more)
    ref = add_version(settings, "1")
    state = open_state(settings.state_url)
    with state.begin() as tx:
        rollouts.add_version(tx, MODEL, ref, "run-1", NOON)
        rollouts.set_baseline(tx, MODEL, "1", 0.25, 1000)
        rollouts.write(tx, Rollout(model=MODEL, epoch=3, champion=ref, created_at=NOON))
        reference = rollouts.Reference(kind="training", path=REFERENCE, created_at=NOON)
        rollouts.set_reference(tx, MODEL, "1", reference)
        checks.begin(tx, "check-1", MODEL, "1", NOON)
        events.record(tx, types.MODEL_PROMOTED, MODEL, NOON, version="1")
    state.close()
    for name in (REFERENCE, "runs/run-1/train.parquet", "reports/one/report.html"):
        path = settings.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    settings.keys_path.write_text("# hashed keys\n")
    (settings.home / "server-id").write_text("the-server-of-this-home")
    return settings


def add_version(settings: Settings, version: str) -> VersionRef:
    entry = entry_path(settings.cache_path, MODEL, version)
    weights = model_folder(entry) / "data" / "weights.bin"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(version.encode() * 1000)
    spec = ModelSpec(
        model=MODEL,
        version=version,
        runtime="torch",
        task=Task.CLASSIFICATION,
        features=(),
        files=hash_files(model_folder(entry)),
    )
    (entry / SPEC_FILE).write_bytes(to_json(spec))
    return VersionRef(version=version, digest=digest_of(spec))


def writer_of(settings: Settings, writer_id: str = "server-1") -> JournalWriter:
    """A live one: as a server's, it commits only when told to."""
    return open_writer(settings.home, url=settings.journal_path, writer_id=writer_id)


def log_rows(settings: Settings, ids: Sequence[str], *, labels: bool = True) -> None:
    writer = writer_of(settings)
    writer.append(tensor_rows(ids))
    if labels:
        writer.label([label(each, "7") for each in ids])
    writer.close()


def logged(settings: Settings) -> list[str]:
    """Ids in the log, each as often as it is there."""
    found = Journal(settings.journal_path, MODEL, Task.CLASSIFICATION).window(*EVER, PIXELS)
    return sorted(ids_of(found))
