"""homeostat.toml and the environment -> typed, frozen settings. What each key means stands here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from homeostat.records import Mode, Task
from homeostat.settings_checks import check
from homeostat.settings_reader import read
from homeostat.words import Rate, Size, parse_size

FILE_NAME = "homeostat.toml"

# The second part of each Annotated is the key's line in docs/settings.md.


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What is kept inside its limits."""

    name: Annotated[str, "registered model in MLflow"]
    task: Annotated[Task, "what the model does"] = Task.CLASSIFICATION
    training_data: Annotated[
        Path | None, "Parquet or CSV file of the rows the first version is trained on"
    ] = None
    target: Annotated[str, "column of the training data that holds the label"] = "target"
    features: Annotated[
        tuple[str, ...],
        "columns of the training data the model takes, in its order; empty: all but the target",
    ] = ()
    classes: Annotated[
        tuple[str, ...],
        "names of the classes in the order of the model's outputs; empty: the version's own "
        '(`metadata={"classes": […]}` in `log_model`, or scikit-learn\'s), else 0, 1, 2 …',
    ] = ()


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """The model server."""

    host: Annotated[str, "address to listen on; beyond loopback only with keys"] = "127.0.0.1"
    port: Annotated[int, "0 takes any free port"] = 8100
    grpc_port: Annotated[
        int | None,
        "port of the Open Inference Protocol over gRPC, on the same host; 0 takes any free port; "
        "default: none. Needs `homeostat[grpc]`",
    ] = None
    embedding: Annotated[
        str | None, "module of the network whose output is logged as the embedding"
    ] = None
    workers: Annotated[int, "processes that share the port; each has a log spool of its own"] = 1
    tls_certificate: Annotated[
        Path | None, "PEM file of the certificate, and those up to its authority; default: no TLS"
    ] = None
    tls_key: Annotated[Path | None, "PEM file of its key, without a password"] = None
    low_confidence: Annotated[
        float, "answers whose largest probability is below this are counted as uncertain"
    ] = 0.6
    max_body: Annotated[Size, "largest request body"] = parse_size("8MB")
    max_batch_rows: Annotated[int, "rows the model gets at once"] = 1024
    max_queued_rows: Annotated[int, "rows that may wait; past it the answer is 503"] = 8192
    batch_wait: Annotated[
        timedelta, "how long a first request waits for others to share its batch (heavy models)"
    ] = timedelta(0)
    deadline: Annotated[
        timedelta,
        "a request that has waited longer is answered 504, unless its header `x-request-timeout` "
        'says another number of seconds; "0s": it waits on',
    ] = timedelta(0)
    cache: Annotated[
        Size | None, "memory for answers, by input and version; default: none is kept"
    ] = None
    coalesce: Annotated[
        bool,
        "equal requests in flight are computed once (a model that answers on the event loop "
        "computes them sooner than it compares them: there only with `cache`)",
    ] = True
    shadow_rows: Annotated[
        int, "rows that may wait for a version in shadow; past it they are dropped"
    ] = 1024
    breaker_errors: Annotated[
        int,
        "so many failures of a version in a row, and others answer while they can: the version "
        "before, or `default_answer`; 0: never",
    ] = 5
    breaker_share: Annotated[
        float, "or failures above this share of the requests of ten seconds; 1: never"
    ] = 0.5
    breaker_rest: Annotated[
        timedelta, "until one request tries a failing version again; doubled while it fails"
    ] = timedelta(seconds=5)
    default_answer: Annotated[
        str | None,
        'JSON value that every row is answered with when no version can: `\'"circle"\'`, `"0.5"`',
    ] = None
    threads: Annotated[int, "threads of one prediction (torch, ONNX)"] = 1
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        "where models of torch and ONNX compute; auto: on the GPU where torch finds one",
    ] = "auto"
    precision: Annotated[
        Literal["float32", "bf16"],
        "of a torch network's matrix products and convolutions; bf16 is faster on a GPU, and less "
        "exact: 3 digits",
    ] = "float32"
    gpu_memory: Annotated[
        float, "share of the GPU's memory that one process may take; it is enforced"
    ] = 0.9
    traces: Annotated[
        str | None,
        "where OpenTelemetry traces of requests go: the URL of a collector that takes OTLP over "
        "HTTP, such as `http://127.0.0.1:4318`; default: there are none. Needs `homeostat[otel]`",
    ] = None
    traces_share: Annotated[
        float,
        "share of requests that are traced; callers that send a `traceparent` say it themselves",
    ] = 0.01
    drain: Annotated[timedelta, "longest wait for open requests at SIGTERM"] = timedelta(seconds=20)
    arrive_within: Annotated[timedelta, "longest time a request may take to come in"] = timedelta(
        seconds=60
    )
    poll: Annotated[timedelta, "how often the rollout record is looked at"] = timedelta(seconds=0.5)


@dataclass(frozen=True, kw_only=True)
class JournalSettings:
    """The prediction log."""

    path: Annotated[
        str | None,
        "folder or URL (s3://bucket/folder …) of the Delta tables; default: journal/ in home",
    ] = None
    durability: Annotated[
        Literal["async", "spool", "sync"],
        "when an answer goes out: async, before the row is written (a kill may lose the last "
        "50 ms); spool, after it is in the spool file (survives kill -9); sync, after fsync "
        "(survives power loss)",
    ] = "spool"
    commit_every: Annotated[timedelta, "longest time a row waits for its Delta commit"] = timedelta(
        seconds=30
    )
    commit_bytes: Annotated[Size, "or as soon as the spool holds this much"] = parse_size("64MB")
    memory: Annotated[Size, "rows in memory that wait for the spool (durability async)"] = (
        parse_size("64MB")
    )
    spool: Annotated[Size, "rows on local disk that wait for their commit"] = parse_size("4GB")
    when_full: Annotated[
        Literal["block", "drop"],
        "when memory or spool are full, or the disk does not take a row: block, the answer waits "
        "for room, at most `block_for`, then 503; drop, the answer goes out, the row is counted "
        "as dropped",
    ] = "block"
    block_for: Annotated[timedelta, "longest wait of an answer for room in the log"] = timedelta(
        seconds=2
    )
    sample: Annotated[
        float, "share of the rows that is logged, chosen by their id; readers weigh accordingly"
    ] = 1.0
    inputs: Annotated[
        Literal["full", "descriptors", "none"],
        "what is logged of a row's inputs: all; six numbers that describe it (mean, deviation, "
        "smallest, largest, share of zeros, share missing); nothing. Only full can train",
    ] = "full"
    redact: Annotated[
        tuple[str, ...], 'named columns, or "key" (the caller\'s), that are never logged'
    ] = ()
    hash: Annotated[
        tuple[str, ...],
        'named columns, or "key", of which only a keyed hash is logged: equal stays equal',
    ] = ()
    hash_key_env: Annotated[str | None, "environment variable that holds the key of that hash"] = (
        None
    )
    hash_key_file: Annotated[Path | None, "or a file that holds it"] = None
    keep: Annotated[timedelta, 'older rows, and labels, are deleted; "0s": never'] = timedelta(
        days=90
    )
    keep_bytes: Annotated[
        Size | None, "the oldest days are deleted beyond this size of the tables; default: no limit"
    ] = None
    upkeep_every: Annotated[
        timedelta, "how often small files are put together and old ones deleted"
    ] = timedelta(hours=1)
    keep_deleted: Annotated[
        timedelta, "replaced files stay this long for those who are reading them"
    ] = timedelta(hours=24)


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


@dataclass(frozen=True, kw_only=True)
class Settings:
    """homeostat.toml."""

    model: ModelSettings
    mode: Annotated[Mode, "how far the loop goes by itself"] = Mode.ACT
    home: Annotated[Path, "folder of everything the platform keeps"] = Path(".homeostat")
    serving: ServingSettings = field(default_factory=ServingSettings)
    journal: JournalSettings = field(default_factory=JournalSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    state: StateSettings = field(default_factory=StateSettings)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
    retrain: RetrainSettings = field(default_factory=RetrainSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    alerts: tuple[AlertSettings, ...] = ()
    score: tuple[ScoreSettings, ...] = ()
    console: ConsoleSettings = field(default_factory=ConsoleSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    project: Annotated[Path, "folder of the file; not a key"] = Path()

    # Where things lie, so that no room spells a path of another's.

    @property
    def journal_path(self) -> str:
        place = self.journal.path
        if place is None:
            return str(self.home / "journal")
        return place if "://" in place else str(self.project / Path(place).expanduser())

    @property
    def spool_path(self) -> Path:
        return self.home / "spool"

    @property
    def tracking_uri(self) -> str:
        return self.registry.tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def artifacts_path(self) -> Path:
        """Of the embedded registry; a server knows its own."""
        return self.home / "mlartifacts"

    @property
    def state_url(self) -> str:
        return self.state.url or f"sqlite:///{self.home / 'state.db'}"

    @property
    def cache_path(self) -> Path:
        return self.home / "cache"

    @property
    def rollout_path(self) -> Path:
        return self.home / "rollout" / f"{self.model.name}.json"

    @property
    def jobs_path(self) -> Path:
        return self.home / "jobs"

    @property
    def runs_path(self) -> Path:
        """What retraining runs leave: training sets, holdouts, references."""
        return self.home / "runs"

    @property
    def reports_path(self) -> Path:
        return self.home / "reports"

    @property
    def references_path(self) -> Path:
        return self.home / "references"

    @property
    def logs_path(self) -> Path:
        return self.home / "logs"

    @property
    def keys_path(self) -> Path:
        return self.auth.keys_file or self.home / "keys.toml"


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read a project's settings; a function of the files and the environment given.

    `path` is the file, or the project's folder. Keys may be overridden by variables such as
    HOMEOSTAT_SERVING_PORT. Relative paths are taken from the project's folder. Raises
    SettingsError naming the file, the key, what is allowed and the nearest right name; also where
    the training data or the test set it names is not there.
    """
    file = path / FILE_NAME if path.is_dir() else path
    settings = read(Settings, file, environ)
    check(settings, file)
    return settings
