"""The frozen records that pass between rooms; through them the rooms need not know each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeVar

import msgspec

T = TypeVar("T")


class Task(StrEnum):
    CLASSIFICATION = "classification"
    REGRESSION = "regression"


class Mode(StrEnum):
    """How far the loop goes by itself."""

    OBSERVE = "observe"  # checks and tells
    PROPOSE = "propose"  # also trains and gates; a person promotes
    ACT = "act"  # also promotes what passed the gate


class VerdictKind(StrEnum):
    OK = "ok"
    DATA_BUG = "data_bug"
    BENIGN_SHIFT = "benign_shift"
    HARMFUL_SHIFT = "harmful_shift"
    CONCEPT_DRIFT = "concept_drift"
    UNDETERMINED = "undetermined"
    NO_DATA = "no_data"


class Action(StrEnum):
    NOTHING = "nothing"
    ALERT = "alert"
    QUARANTINE = "quarantine"
    PROBE = "probe"  # train and gate, do not promote
    RETRAIN = "retrain"
    ASK = "ask"  # a person decides


class GateOutcome(StrEnum):
    PASS = "pass"  # noqa: S105 - an outcome, not a password
    FAIL = "fail"
    TOO_FEW = "too_few"


class Stage(StrEnum):
    """Where a retraining run stands; each is written before its work begins."""

    PLANNED = "planned"  # the training set is being built
    TRAINING = "training"  # the user's program runs
    REGISTERING = "registering"  # its model becomes a registered version
    GATING = "gating"  # the version meets the champion
    PROPOSED = "proposed"  # it passed, and waits for a person
    PROMOTING = "promoting"  # the rollout record is being written
    PROMOTED = "promoted"
    REJECTED = "rejected"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in (Stage.PROMOTED, Stage.REJECTED, Stage.FAILED)


class FeatureKind(StrEnum):
    NUMBER = "number"
    CATEGORY = "category"


@dataclass(frozen=True, kw_only=True)
class Feature:
    name: str
    kind: FeatureKind = FeatureKind.NUMBER
    integer: bool = False  # the signature asked for a whole number
    dtype: str = ""  # of a column, where that does not say it all: "int32", "bool"


@dataclass(frozen=True, kw_only=True)
class ImageStep:
    """How an image becomes a row of the model's shape: resized, scaled, shifted, laid out."""

    layout: Literal["CHW", "HWC"] = "CHW"
    fit: Literal["stretch", "crop"] = "stretch"  # to the size as it is, or its middle
    scale: float = 1 / 255  # by which the pixels, 0 to 255, are multiplied first
    mean: tuple[float, ...] = ()  # then this is taken away, one a channel
    std: tuple[float, ...] = ()  # and that divides the rest

    def channels(self, shape: tuple[int, ...]) -> int:
        return shape[0] if self.layout == "CHW" else shape[2]

    def size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Width and height."""
        return (shape[2], shape[1]) if self.layout == "CHW" else (shape[1], shape[0])


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One version in the local cache: all that is needed to serve it without MLflow."""

    model: str
    version: str
    runtime: str  # "torch" (an exported program), "onnx", or "pyfunc" (else, in a worker process)
    task: Task
    features: tuple[Feature, ...]  # in the order the model takes them; a tensor's elements, flat
    tensor_shape: tuple[int, ...] | None = None  # shape of one row; None: named columns
    tensor_dtype: str = "float32"
    classes: tuple[str, ...] = ()  # names of the classes in the order of the probabilities
    embedding: str | None = None  # a module of the network whose output is the embedding
    postprocessing: str = ""  # softmax, sigmoid or none; empty: as the outputs show
    image: ImageStep | None = None  # how an uploaded image becomes its tensor
    flavor: str = ""  # MLflow's flavor, for people
    run_id: str = ""  # MLflow's run
    files: Mapping[str, str] = field(default_factory=dict)  # relative path -> sha256

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)


@dataclass(frozen=True, kw_only=True)
class VersionRef:
    """A version and the digest of its files: what a rollout names and a server verifies."""

    version: str
    digest: str


class TrialKind(StrEnum):
    """What a version on trial does with its share of the requests."""

    SHADOW = "shadow"  # it answers a copy of them, to nobody
    CANARY = "canary"  # it answers them, a few first
    AB = "ab"  # it answers them, for as long as the comparison takes


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A version beside the champion."""

    version: VersionRef
    kind: TrialKind
    share: float  # of the requests, from 0 to 1

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"the share of a trial is a number from 0 to 1, not {self.share:g}")


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Who serves. The newest epoch is the truth; aliases in MLflow only mirror it."""

    model: str
    epoch: int
    champion: VersionRef
    previous: VersionRef | None = None
    challenger: VersionRef | None = None
    trial: Trial | None = None
    reason: str = ""
    actor: str = "loop"
    run_id: str | None = None  # the retraining run that led here
    created_at: datetime
    # Where its champion served before, as when a version was only put on trial; None: created_at.
    champion_since: datetime | None = None

    @property
    def since(self) -> datetime:
        """When its champion came to serve."""
        return self.champion_since or self.created_at

    @property
    def versions(self) -> tuple[VersionRef, ...]:
        """Every version it names, the champion first."""
        trial = self.trial.version if self.trial else None
        named = (self.champion, self.previous, self.challenger, trial)
        return tuple(dict.fromkeys(ref for ref in named if ref is not None))


@dataclass(frozen=True, kw_only=True)
class Label:
    prediction_id: str
    value: str  # canonical text, see homeostat.labels.canonical
    name: str = "label"
    source: str = ""
    time: datetime


@dataclass(frozen=True, kw_only=True)
class Window:
    """The rows of one check: from start (inclusive) to end (exclusive)."""

    model: str
    start: datetime
    end: datetime
    versions: tuple[str, ...] = ()  # empty: every version


@dataclass(frozen=True, kw_only=True)
class Score:
    """The drift of one column, in the definition of its method."""

    column: str
    method: str
    value: float
    threshold: float
    drifted: bool


@dataclass(frozen=True, kw_only=True)
class DataBug:
    """A column whose rows cannot be right, and how many they are."""

    column: str
    problem: str  # "out_of_range", "missing", "unseen_category"
    rows: int
    share: float
    detail: str  # for people, e.g. "values up to 1600, reference 0 to 16"


@dataclass(frozen=True, kw_only=True)
class ErrorComparison:
    """The error on labelled rows of the window, against what the version promised."""

    metric: str  # "error_rate" or "mae"
    baseline: float
    current: float
    labelled: int
    p_value: float
    worse: bool  # significantly and by more than the effect floor


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of one check."""

    check_id: str
    window: Window
    version: str  # of the champion whose reference was used
    kind: VerdictKind
    reason: str
    rows: int
    labelled: int
    drift_share: float | None = None  # share of drifted columns
    scores: tuple[Score, ...] = ()
    bugs: tuple[DataBug, ...] = ()
    errors: ErrorComparison | None = None
    quarantined: int = 0  # rows this check put aside
    rebased: bool = False  # this check's window became the version's reference
    report: str | None = None  # folder of the Evidently report, relative to the home folder
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What follows from a verdict, and why."""

    decision_id: str
    model: str
    action: Action
    reason: str
    verdict_kind: VerdictKind | None = None
    check_id: str | None = None
    actor: str = "loop"
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Run:
    """One retraining, from its training set to promotion or rejection."""

    run_id: str
    model: str
    decision_id: str
    action: Action  # RETRAIN or PROBE
    stage: Stage
    attempt: int = 1
    verdict_kind: VerdictKind | None = None
    command: tuple[str, ...] = ()  # instead of the one in the settings; empty: the settings'
    train_until: datetime | None = None  # labelled rows newer than this are not used
    mlflow_run_id: str | None = None
    candidate: VersionRef | None = None
    waiting_for: str | None = None  # what is away, for people
    error: str | None = None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class GateCheck:
    """One line of the gate's report. `passed` is None where it only reports."""

    name: str
    passed: bool | None
    value: float | None
    limit: float | None
    detail: str


@dataclass(frozen=True, kw_only=True)
class GateReport:
    outcome: GateOutcome
    reason: str
    candidate: str
    champion: str | None
    metric: str
    candidate_test: float | None  # the metric on the test rows that count
    champion_test: float | None
    candidate_holdout: float | None  # the metric on the newest matured labels
    champion_holdout: float | None
    test_rows: int
    contradicted_rows: int  # test rows that newer labels contradict: reported, not counted
    holdout_rows: int
    checks: tuple[GateCheck, ...] = ()
    baseline_error: float = 0.0  # what the candidate promises for later checks
    baseline_rows: int = 0


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened, for people and for machines; delivered to webhooks."""

    event_id: str
    type: str  # "drift.detected", "model.promoted" …, see homeostat.events
    model: str
    time: datetime
    data: Mapping[str, Any] = field(default_factory=dict)


def to_json(record: object) -> bytes:
    return msgspec.json.encode(record)


def from_json(data: bytes | str, type_: type[T]) -> T:
    return msgspec.json.decode(data, type=type_)
