"""Files made of the log's rows, rid of some: training sets, holdouts, references, and the copy of a
reference that MLflow keeps with its run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from homeostat.errors import RegistryRefused, Unavailable
from homeostat.journal.delta.files import Progress
from homeostat.journal.forgetting import forget, traces
from homeostat.journal.forgetting.forget import Wanted
from homeostat.records import Run
from homeostat.settings import Settings
from homeostat.state import runs
from homeostat.state.store import State

REFERENCE = "reference.parquet"
EVIDENCE = "homeostat"  # the folder of a run's artifacts that is ours


@dataclass(frozen=True)
class Stripped:
    rows: dict[str, int]  # by path below home
    remains: tuple[str, ...]  # sentences: what could not be done


def holding(settings: Settings, wanted: Wanted, progress: Progress) -> list[Path]:
    """Training sets, holdouts and references with such rows, by the traces beside them."""
    found = [*traces.traced(settings.runs_path), *traces.traced(settings.references_path)]
    holding = []
    for done, path in enumerate(found):
        progress("looking through training sets", done, len(found))
        if traces.read_trace(path).filter(forget.matching(wanted)).num_rows:
            holding.append(path)
    return holding


def strip(settings: Settings, state: State, paths: Sequence[Path], wanted: Wanted) -> Stripped:
    """Take the rows out of the files. MLflow's copy comes first, and a reference stays as it is
    while MLflow is away: only by it is known what its copy holds."""
    stripped, remains = {}, []
    for path in paths:
        name = path.relative_to(settings.home).as_posix()
        run = _run_of(settings, state, path)
        try:
            if run is not None:
                _replace_copy(settings, run, path, wanted)
        except Unavailable as problem:
            remains.append(
                f"{name} and its copy in MLflow are as they were: {problem}; run this again."
            )
            continue
        except RegistryRefused as problem:
            remains.append(
                f"MLflow would not take {EVIDENCE}/{REFERENCE} of the run of {name} without such "
                f"rows ({problem}): delete that artifact."
            )
        stripped[name] = traces.without(path, ids=wanted.ids, keys=wanted.keys)
    return Stripped(stripped, tuple(remains))


def _run_of(settings: Settings, state: State, path: Path) -> Run | None:
    """The retraining run whose reference a file is; None for any other file."""
    if path.name != REFERENCE or path.parent.parent != settings.runs_path:
        return None
    with state.begin() as tx:
        return runs.get(tx, path.parent.name)


def _replace_copy(settings: Settings, run: Run, path: Path, wanted: Wanted) -> None:
    """Under its name: an artifact is replaced by what is logged in its place. Raises
    RegistryUnavailable or RegistryRefused."""
    from homeostat.registry.mlflow_registry import Registry  # takes seconds, and few need it

    registry = Registry(settings)
    candidate = run.candidate
    mlflow_run_id = run.mlflow_run_id or (candidate and registry.version_run(candidate.version))
    if not mlflow_run_id:
        return
    with TemporaryDirectory(prefix="homeostat-") as folder:
        copy = Path(folder) / REFERENCE
        for each in path.parent.glob(f"{path.stem}.*"):  # and its trace
            shutil.copyfile(each, copy.with_name(each.name))
        traces.without(copy, ids=wanted.ids, keys=wanted.keys)
        registry.log_files(mlflow_run_id, copy.parent, [REFERENCE], EVIDENCE)
