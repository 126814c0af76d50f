"""Sections of homeostat.toml: what the loop does, with whom it talks, and who may talk to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from homeostat.words import Rate, Size, parse_size

# The second part of each Annotated is the key's line in docs/settings.md.


@dataclass(frozen=True, kw_only=True)
class RegistrySettings:
    """MLflow."""

    tracking_uri: Annotated[str | None, "MLflow server; default: mlflow.db in home (SQLite)"] = None
    experiment: Annotated[
        str | None, "experiment of the training runs, unless the program sets one; default: name"
    ] = None
    ui: Annotated[bool, "`up` starts MLflow's UI when the registry is the embedded one"] = True
    ui_port: Annotated[int, "port of that UI; 0 takes any free port"] = 8102


@dataclass(frozen=True, kw_only=True)
class StateSettings:
    """Checks, decisions, runs, rollouts, events."""

    url: Annotated[str | None, "SQLAlchemy URL; default: state.db in home (SQLite)"] = None


@dataclass(frozen=True, kw_only=True)
class MonitorSettings:
    """Window and reference -> verdict."""

    every: Annotated[timedelta, "time between checks"] = timedelta(seconds=300)
    window: Annotated[timedelta, "rows a check looks at"] = timedelta(seconds=3600)
    label_delay: Annotated[timedelta, "labels older than this are matured"] = timedelta(seconds=0)
    false_alarms: Annotated[Rate, "how many false alarms you accept"] = Rate(1, timedelta(days=30))
    min_rows: Annotated[int, "a window with fewer rows gets the verdict no_data"] = 500
    min_labels: Annotated[int, "fewer matured labels say nothing about errors"] = 100
    drift_share: Annotated[float, "share of drifted columns that makes a shift"] = 0.5
    error_floor: Annotated[
        float, "a rise of the error below this does not matter (regression: share of the baseline)"
    ] = 0.03
    bug_share: Annotated[float, "share of impossible values that makes a data bug"] = 0.005
    range_slack: Annotated[
        float, "how many times the reference's range a number may lie outside it"
    ] = 3.0
    report_rows: Annotated[int, "rows of window and reference in an Evidently report"] = 2000
    keep_reports: Annotated[int, "newest reports kept"] = 100
    time_limit: Annotated[timedelta, "a check that takes longer is ended"] = timedelta(seconds=600)


@dataclass(frozen=True, kw_only=True)
class RetrainSettings:
    """Verdict -> candidate."""

    command: Annotated[
        tuple[str, ...],
        "your training program; {train} is the training set's file, {output} a scratch folder",
    ] = ()
    cooldown: Annotated[timedelta, "least time between the starts of two runs"] = timedelta(
        seconds=6 * 3600
    )
    budget: Annotated[Rate, "most runs in a time"] = Rate(4, timedelta(days=1))
    confirmations: Annotated[int, "checks in a row that must find harm before a run starts"] = 2
    max_rejections: Annotated[int, "so many rejected candidates in a row, then a person"] = 3
    time_limit: Annotated[timedelta, "a program that takes longer is ended"] = timedelta(
        seconds=4 * 3600
    )
    env: Annotated[
        tuple[str, ...], "names of environment variables the program also gets (no others)"
    ] = ()
    max_rows: Annotated[int, "newest labelled rows in a training set, beside the old data"] = (
        1_000_000
    )


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """What a candidate must show before it serves."""

    test_set: Annotated[Path | None, "frozen test rows, with the training data's columns"] = None
    metric: Annotated[
        Literal["accuracy", "mae"] | None,
        "what versions are compared by: so far accuracy, and mae for regression",
    ] = None
    margin: Annotated[
        float, "how much worse a candidate may be on the test set (regression: share)"
    ] = 0.005
    minimum: Annotated[
        float | None,
        "with no champion: least accuracy, or largest mae; default: better than the most "
        "frequent class, or than the mean",
    ] = None
    holdout_share: Annotated[float, "share of the newest labelled rows kept for the gate"] = 0.3
    min_rows: Annotated[int, "fewer rows on either side decide nothing"] = 100
    slices: Annotated[tuple[str, ...], "columns within whose values it may not get worse"] = ()
    slice_margin: Annotated[float, "how much worse a slice may be"] = 0.02
    calibration_margin: Annotated[float, "how much the calibration error may grow"] = 0.05
    latency_ratio: Annotated[float, "how many times slower than the champion it may be"] = 2.0
    max_size: Annotated[Size, "largest size of a version's files"] = parse_size("4GB")
    time_limit: Annotated[timedelta, "a gate that takes longer is ended"] = timedelta(seconds=1800)


@dataclass(frozen=True, kw_only=True)
class AlertSettings:
    """One receiver of events; repeat the section for more."""

    url: Annotated[str, "https, or http on loopback"]
    secret_env: Annotated[
        str | None, "environment variable that holds the signing secret (whsec_…)"
    ] = None
    secret_file: Annotated[Path | None, "or a file that holds it"] = None
    events: Annotated[
        tuple[str, ...], 'patterns of event types, such as "model.*"; empty: the ones for people'
    ] = ()


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Batch scoring on a schedule, as `homeostat score` does it; repeat the section for more."""

    name: Annotated[str, "in metrics and logs, and of the files"]
    input: Annotated[str, "file, folder, or Delta table by folder or URL"]
    output: Annotated[
        Path,
        "folder: each run writes a file named after its time; with format delta, the table that "
        "each run appends to",
    ]
    every: Annotated[timedelta, "a run is due at each multiple of this since 1970, UTC"]
    format: Annotated[Literal["parquet", "csv", "delta"], "of the files, or a Delta table"] = (
        "parquet"
    )
    keep: Annotated[str, "as --keep"] = "all"
    log: Annotated[bool, 'the rows are logged, with the role "batch"'] = False


@dataclass(frozen=True, kw_only=True)
class ConsoleSettings:
    """The status page."""

    host: Annotated[str, "address to listen on; beyond loopback only with keys"] = "127.0.0.1"
    port: Annotated[int, "0 takes any free port"] = 8101


@dataclass(frozen=True, kw_only=True)
class AuthSettings:
    """Keys; made with `homeostat keys new`."""

    keys_file: Annotated[Path | None, "hashed keys; default: keys.toml in home, if there"] = None
