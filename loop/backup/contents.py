"""What of home belongs into a backup, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from homeostat.errors import IntegrityError, NotReady
from homeostat.journal.spooling.segments import REJECTED
from homeostat.records import VersionRef
from homeostat.registry.cache import entry_path, verify
from homeostat.settings import Settings
from homeostat.state import rollouts, runs
from homeostat.state.store import State

MLFLOW_DATABASE = "mlflow.db"

# Not among them: the state (dumped), the spool (waited for), jobs and logs (begun anew), and the
# server's id, by which a copy of this home would be taken for it.


def folders(settings: Settings, *, artifacts: bool) -> list[Path]:
    """Folders that are taken whole: what was trained on, compared with, and shown as evidence."""
    found = [settings.runs_path, settings.references_path, settings.reports_path]
    if artifacts and settings.registry.tracking_uri is None:
        found.append(settings.artifacts_path)
    spool = settings.spool_path / settings.model.name
    return found + sorted(spool.glob(f"*/{REJECTED}"))


def files_below(folder: Path) -> Iterator[Path]:
    """Without what is still being written under a name that is not its own."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.suffix != ".part" and path.is_file():
            yield path


def versions(state: State, model: str) -> tuple[VersionRef, ...]:
    """Those the newest rollout names, and one that waits for its promotion: with their files a
    server serves, MLflow or not."""
    with state.begin() as tx:
        rollout, run = rollouts.current(tx, model), runs.active(tx, model)
    named = rollout.versions if rollout else ()
    found = (*named, run.candidate if run else None)
    return tuple(dict.fromkeys(ref for ref in found if ref is not None))


def cached(settings: Settings, ref: VersionRef) -> Path | None:
    """Its entry in the cache, verified; None where it is not there, or not what it should be."""
    entry = entry_path(settings.cache_path, settings.model.name, ref.version)
    try:
        verify(entry, ref.digest)
    except (NotReady, IntegrityError):
        return None
    return entry


def references(settings: Settings, state: State) -> list[Path]:
    """What the state says that versions are compared with."""
    model = settings.model.name
    refs = versions(state, model)
    with state.begin() as tx:
        found = [rollouts.references_of(tx, model, ref.version).values() for ref in refs]
    return [settings.home / each.path for kinds in found for each in kinds]
