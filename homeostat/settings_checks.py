"""What a type cannot say: settings that cannot be right are refused, by a table of their bounds."""

from __future__ import annotations

import json
import math
import re
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from homeostat.errors import SettingsError
from homeostat.records import Task

if TYPE_CHECKING:
    from homeostat.settings import Settings


class Bounds(NamedTuple):
    """From `low` to `high`; `above` and `below` leave out that end itself."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def allow(self, value: float) -> bool:
        # nan is refused, since every comparison with it is false.
        starts = self.low < value if self.above else self.low <= value
        return starts and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low = f"a number above {self.low:g}" if self.above else f"a number from {self.low:g}"
        if self.high == math.inf:
            return low
        return f"{low} to {'below ' if self.below else ''}{self.high:g}"


_PORT, _COUNT, _SHARE = Bounds(0, 65535), Bounds(1), Bounds(0, 1)

NUMBERS = {
    "serving.port": _PORT,
    "serving.grpc_port": _PORT,
    "serving.workers": Bounds(1, 256),
    "serving.low_confidence": _SHARE,
    "serving.max_body": _COUNT,
    "serving.max_batch_rows": _COUNT,
    "serving.max_queued_rows": _COUNT,
    "serving.cache": _COUNT,
    "serving.shadow_rows": _COUNT,
    "serving.breaker_errors": Bounds(0),
    "serving.breaker_share": _SHARE,
    "serving.threads": _COUNT,
    "serving.traces_share": _SHARE,
    "serving.gpu_memory": Bounds(0, 1, above=True),
    "journal.commit_bytes": _COUNT,
    "journal.memory": _COUNT,
    "journal.spool": _COUNT,
    "journal.sample": Bounds(0, 1, above=True),
    "journal.keep_bytes": _COUNT,
    "registry.ui_port": _PORT,
    "monitor.min_rows": Bounds(2),  # one row has no distribution
    "monitor.min_labels": _COUNT,
    "monitor.drift_share": Bounds(0, 1, above=True),
    "monitor.error_floor": Bounds(0),
    "monitor.bug_share": _SHARE,
    "monitor.range_slack": Bounds(0),
    "monitor.report_rows": _COUNT,
    "monitor.keep_reports": Bounds(0),
    "retrain.confirmations": _COUNT,
    "retrain.max_rejections": _COUNT,
    "retrain.max_rows": _COUNT,
    "gate.margin": _SHARE,
    "gate.minimum": Bounds(0),
    "gate.holdout_share": Bounds(0, 1, above=True, below=True),
    "gate.min_rows": _COUNT,
    "gate.slice_margin": _SHARE,
    "gate.calibration_margin": _SHARE,
    "gate.latency_ratio": Bounds(0, above=True),
    "gate.max_size": _COUNT,
    "console.port": _PORT,
}
# The other durations may be zero, which says: at once.
POSITIVE_DURATIONS = (
    "serving.poll",
    "serving.breaker_rest",
    "journal.commit_every",
    "journal.upkeep_every",
    "monitor.every",
    "monitor.window",
    "monitor.time_limit",
    "retrain.time_limit",
    "gate.time_limit",
)
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
FILES = ("model.training_data", "gate.test_set")


def check(settings: Settings, file: Path) -> None:
    """Raises SettingsError naming the file, the key, and what is allowed."""
    for key, bounds in NUMBERS.items():
        number: float | None = attrgetter(key)(settings)
        if number is not None and not bounds.allow(number):
            raise _error(file, key, f"{bounds}, not {number}")
    for key in POSITIVE_DURATIONS:
        duration: timedelta = attrgetter(key)(settings)
        if duration <= timedelta(0):
            raise _error(file, key, "a duration above zero")
    _check_together(settings, file)


def require_files(settings: Settings) -> None:
    """For those who train and gate; a server elsewhere need not have these files."""
    for key in FILES:
        data: Path | None = attrgetter(key)(settings)
        if data is not None and not data.is_file():
            message = f"there is no file {data}; correct the path, or put it there"
            raise _error(settings.project, key, message)


def _check_together(settings: Settings, file: Path) -> None:
    monitor, gate = settings.monitor, settings.gate
    _check_journal(settings, file)
    _check_scores(settings, file)
    _check_default_answer(settings, file)
    _check_tls(settings, file)
    _check_traces(settings, file)
    if monitor.window < monitor.every:
        message = "shorter than monitor.every: rows in between would never be checked"
        raise _error(file, "monitor.window", message)
    for name in _PLACEHOLDER.findall(" ".join(settings.retrain.command)):
        if name not in ("train", "output"):
            message = f"unknown placeholder {{{name}}}; known are {{train}} and {{output}}"
            raise _error(file, "retrain.command", message)
    if gate.metric and (gate.metric == "mae") != (settings.model.task is Task.REGRESSION):
        message = f'"{gate.metric}" does not measure a {settings.model.task} model'
        raise _error(file, "gate.metric", message)
    if settings.model.task is Task.CLASSIFICATION and (gate.minimum or 0) > 1:
        raise _error(file, "gate.minimum", f"an accuracy, at most 1, not {gate.minimum}")
    if not settings.model.name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        message = 'letters, digits, ".", "-" and "_" only: it names folders and metrics'
        raise _error(file, "model.name", message)


def _check_default_answer(settings: Settings, file: Path) -> None:
    text, regression = settings.serving.default_answer, settings.model.task is Task.REGRESSION
    if text is None:
        return
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if regression and not (number and math.isfinite(value)):
        message = f'a number in quotes, such as "0.5", not {text}'
    elif not regression and not isinstance(value, str):
        message = f"""a class in JSON, such as '"circle"', not {text}"""
    elif not regression and settings.model.classes and value not in settings.model.classes:
        message = f"one of model.classes ({', '.join(settings.model.classes)}), not {value}"
    else:
        return
    raise _error(file, "serving.default_answer", message)


def _check_tls(settings: Settings, file: Path) -> None:
    serving = settings.serving
    both = {"tls_certificate": serving.tls_certificate, "tls_key": serving.tls_key}
    missing = [name for name, path in both.items() if path is None]
    if len(missing) == 1:
        message = "missing: TLS needs serving.tls_certificate and serving.tls_key, both or none"
        raise _error(file, f"serving.{missing[0]}", message)


def _check_traces(settings: Settings, file: Path) -> None:
    url = settings.serving.traces
    if url is None:
        return
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        message = "the http or https URL of a collector, such as http://127.0.0.1:4318"
        raise _error(file, "serving.traces", message)
    if "@" in parts.netloc or parts.query:
        message = "no password or key in it; the variable OTEL_EXPORTER_OTLP_HEADERS takes them"
        raise _error(file, "serving.traces", message)


def _check_scores(settings: Settings, file: Path) -> None:
    names = [section.name for section in settings.score]
    for at, section in enumerate(settings.score):
        if not re.fullmatch(r"[A-Za-z0-9_-]+", section.name) or names.count(section.name) > 1:
            message = 'letters, digits, "-" and "_" only, and each name once: it names files'
            raise _error(file, f"score[{at}].name", message)
        if section.every < timedelta(minutes=1):
            raise _error(file, f"score[{at}].every", "a duration of a minute or more")


def _check_journal(settings: Settings, file: Path) -> None:
    journal = settings.journal
    if timedelta(0) < journal.keep < settings.monitor.window:
        message = "shorter than monitor.window: a check would miss rows"
        raise _error(file, "journal.keep", message)
    if journal.hash and not (journal.hash_key_env or journal.hash_key_file):
        message = (
            "needs journal.hash_key_env or journal.hash_key_file: without a key, guessing works"
        )
        raise _error(file, "journal.hash", message)
    both = sorted(set(journal.hash) & set(journal.redact))
    if both:
        raise _error(file, "journal.redact", f"{both[0]} is in journal.hash as well; choose one")


def _error(file: Path, key: str, message: str) -> SettingsError:
    return SettingsError(message, file=str(file), key=key)
