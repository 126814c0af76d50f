"""What the server says of itself: how it counts, and how the counts of several become one."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from serving_kit import FEATURES, MODEL, Server, add_version, make_project, publish, running

from homeostat.metrics import Instruments
from homeostat.model_runtime.contract import Outputs
from homeostat.records import Feature, FeatureKind, ModelSpec, Task, Trial, TrialKind
from serving.counting.distinct import Distinct, estimate
from serving.counting.measuring import Measuring
from serving.counting.observing import BULK_ROWS, MOST_FEATURES, WINDOW, Inputs
from serving.counting.scraping import families_of, text_of
from serving.counting.snapshot import Moments, Snapshot, lasting, merged
from serving.requests.parsing import Rows

VALUES = st.lists(st.floats(-1e6, 1e6), max_size=30)


def values_of(text: str) -> dict[str, float]:
    """By name and labels, as the page has them."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def moments_of(values: list[float]) -> Moments:
    if not values:
        return Moments(0, 0, 0)
    return Moments(len(values), float(np.mean(values)), float(np.var(values) * len(values)))


@effort(deadline=None)
@given(VALUES, VALUES)
def test_moments_of_parts_are_those_of_the_whole(one: list[float], other: list[float]) -> None:
    """Workers each know a part; together they say what one process would."""
    together, whole = moments_of(one) + moments_of(other), moments_of(one + other)
    assert together.count == whole.count
    assert together.mean == pytest.approx(whole.mean, rel=1e-9, abs=1e-6)
    assert together.deviation == pytest.approx(whole.deviation, rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("count", [0, 1, 100, 5_000, 200_000])
def test_keys_are_estimated_within_what_is_stated(count: int) -> None:
    """Four standard errors of 1.6 %; repeated keys count once, those of two workers too."""
    one, other = Distinct(), Distinct()
    for number in range(count):
        (one if number % 3 else other).add([f"user-{number}", None, f"user-{number}"])
        if number % 7 == 0:
            other.add([f"user-{number}"])
    both = merged(
        [Snapshot(keys={"m": one.registers()}), Snapshot(keys={"m": other.registers()})]
    ).keys["m"]
    assert abs(estimate(both) - count) <= 4 * 0.016 * count


def spec(*features: Feature) -> ModelSpec:
    return ModelSpec(
        model="m", version="1", runtime="torch", task=Task.CLASSIFICATION, features=features
    )


def test_inputs_of_large_numbers_keep_their_digits() -> None:
    """Times in seconds that differ by one: no difference of two huge sums; gaps are left out; rows
    as a matrix and as columns."""
    time, kind = Feature(name="time"), Feature(name="kind", kind=FeatureKind.CATEGORY)
    values = [1.7e9 + (number % 2) for number in range(BULK_ROWS * 3)]
    inputs = Inputs(spec(kind, time), lambda: 0.0)
    for start in range(0, len(values), 7):
        part = values[start : start + 7]
        columns: dict[str, list[Any]] = {"time": [*part, math.nan], "kind": ["a"] * (len(part) + 1)}
        inputs.add(Rows(len(part) + 1, None, None, columns, None))
    found = inputs.moments()
    assert list(found) == ["time"]
    assert found["time"].count == len(values)
    assert found["time"].mean == pytest.approx(1.7e9 + 0.5, abs=1e-3)
    assert found["time"].deviation == pytest.approx(0.5, abs=1e-3)


def test_inputs_are_of_late_and_bounded() -> None:
    """What is older than the window is forgotten; only so many features have series."""
    now = [0.0]
    features = [Feature(name=f"x{number}") for number in range(MOST_FEATURES + 20)]
    inputs = Inputs(spec(*features), lambda: now[0])
    ones = np.ones((10, len(features)), np.float32)
    inputs.add(Rows(10, None, ones, None, None))
    assert len(inputs.moments()) == MOST_FEATURES
    for _ in range(60):
        now[0] += WINDOW / 20
        inputs.add(Rows(10, None, ones * 5, None, None))
        last = inputs.moments()["x0"]
    assert last.mean == 5
    assert last.count <= 10 * 25


def test_what_cannot_be_summed_up_fails_no_answer() -> None:
    """Observing ends then, and says so once; everything else is counted on."""
    measuring = Measuring(Instruments("server", CollectorRegistry()), "m", classes=True)
    observe = measuring.observing.of(spec(Feature(name="x")))
    outputs = Outputs(["a"], None, None)
    for _ in range(BULK_ROWS + 1):
        observe(Rows(1, None, None, {"x": [object()]}, None), outputs)
    assert measuring.observing.inputs() == {}


def measured(rows: int) -> Snapshot:
    """Of a process that has answered so many rows."""
    registry = CollectorRegistry()
    measuring = Measuring(Instruments("server", registry), "m", classes=True)
    observe = measuring.observing.of(spec(Feature(name="x")))
    probabilities = np.tile(np.array([[0.55, 0.45]], np.float32), (rows, 1))
    matrix = np.arange(rows, dtype=np.float32)[:, None]
    said = ["a"] * rows
    measuring.batch("1", rows, 0.002, said, "champion")
    observe(Rows(rows, None, matrix, None, ["k"] * rows), Outputs(said, probabilities, None))
    measuring.waited([0.001] * rows)
    measuring.observing.pour()
    measuring._count_waits()
    for tally in (measuring._queue_seconds, measuring._rows):
        tally.pour()
    measuring.live(2)
    observing = measuring.observing
    return Snapshot(families_of(registry), {"m": observing.inputs()}, {"m": observing.keys()})


def test_snapshots_of_workers_add_up() -> None:
    """Counters and histograms are sums, a gauge is what it was declared to be, means are of all."""
    text = text_of(merged([measured(10), measured(30)])).decode()
    values = values_of(text)
    model = ("model", "m")
    assert values[f"homeostat_rows_total{[model, ('version', '1')]}"] == 40
    assert values[f"homeostat_queue_seconds_count{[model]}"] == 40
    assert values[f"homeostat_uncertain_answers_total{[model]}"] == 40
    assert values[f"homeostat_confidence_bucket{[('le', '0.6'), model]}"] == 40
    assert values[f"homeostat_confidence_bucket{[('le', '0.5'), model]}"] == 0
    assert values[f"homeostat_versions_live{[model]}"] == 2
    assert values[f"homeostat_unique_keys{[model]}"] == 1
    everything = [*range(10), *range(30)]
    feature = [("feature", "x"), model]
    assert values[f"homeostat_input_mean{feature}"] == pytest.approx(np.mean(everything))
    assert values[f"homeostat_input_deviation{feature}"] == pytest.approx(np.std(everything))


def test_what_a_dead_worker_counted_still_counts() -> None:
    """Its counters and keys stay, its gauges go: no counter goes back when it is replaced."""
    before = merged([measured(10), measured(30)])
    after = merged([lasting(measured(10)), measured(30), measured(1)])
    old, new = (values_of(text_of(each).decode()) for each in (before, after))
    for name, value in old.items():
        if re.match(r"\w+(_total|_count|_bucket|_sum)\[", name):
            assert new[name] >= value, name
    assert lasting(measured(10)).inputs == {}
    assert not any(family.kind == "gauge" for family in lasting(measured(10)).families)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = make_project(tmp_path_factory.mktemp("metrics"))
    publish(settings, add_version(settings, 1), epoch=1)
    with running(settings.project) as server:
        yield server


def test_a_server_says_what_it_does(server: Server) -> None:
    """Errors by kind, the parts of the time, inputs, keys, connections, processor and memory."""
    rows = [[float(number), 2.0, -4.0, 0.0] for number in range(10)]
    assert server.predict(rows, keys=[f"user-{n % 5}" for n in range(10)]).status_code == 200
    assert server.predict([[1.0]]).status_code == 422
    values = values_of(server.http.get("/metrics").text)
    model = ("model", MODEL)
    assert values[f"homeostat_errors_total{[('kind', 'invalid-input'), model]}"] == 1
    for part in ("request", "queue", "compute"):
        assert values[f"homeostat_{part}_seconds_count{[model]}"] == 1
    assert (
        values[f"homeostat_request_seconds_sum{[model]}"]
        >= values[f"homeostat_compute_seconds_sum{[model]}"]
    )
    assert values[f"homeostat_confidence_count{[model]}"] == 10
    assert values[f"homeostat_unique_keys{[model]}"] == 5
    means = [values[f"homeostat_input_mean{[('feature', name), model]}"] for name in FEATURES]
    assert means == [4.5, 2.0, -4.0, 0.0]
    assert values["homeostat_connections[]"] == values["homeostat_in_flight_requests[]"] == 1
    assert values["homeostat_workers[]"] == values["homeostat_workers_ready[]"] == 1
    assert values[f"homeostat_versions_live{[model]}"] == 1
    assert values["process_cpu_seconds_total[]"] > 0
    assert values["process_resident_memory_bytes[]"] > 1e6


def test_trials_come_and_go_and_the_champions_inputs_are_shown(tmp_path: Path) -> None:
    """However many there were; what a version was asked that is in memory no more is not."""
    settings = make_project(tmp_path, '[serving]\npoll = "50ms"\n')
    refs = [add_version(settings, number, runtime="onnx") for number in range(1, 7)]

    def asked_by_name(version: str) -> bool:
        path = f"/models/{MODEL}/versions/{version}/predict"
        return one.http.post(path, json={"rows": [[9.0] * 4]}).is_success

    with running(settings.project, wait=False) as one:
        for epoch, ref in enumerate(refs[1:], start=1):
            trial = Trial(version=ref, kind=TrialKind.CANARY, share=0.0)
            publish(settings, refs[0], epoch, trial)
            one.wait_for(partial(asked_by_name, ref.version))
        publish(settings, refs[0], epoch=9)
        one.wait_for(lambda: one.about()["epoch"] == 9)
        assert one.predict([[3.0, 2.0, 1.0, 0.0]]).status_code == 200
        values = values_of(one.http.get("/metrics").text)
    labels = [("feature", FEATURES[0]), ("model", MODEL)]
    assert values[f"homeostat_input_mean{labels}"] == 3.0


def test_the_page_of_the_api_needs_nothing_from_elsewhere(server: Server) -> None:
    """Everything is on it, and a browser is told to load nothing else."""
    page = server.http.get("/docs")
    assert "text/html" in page.headers["content-type"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page.text)
    assert "http" not in re.sub(r"http-equiv", "", page.text).split("<h2>")[0]
    for path in server.http.get("/openapi.json").json()["paths"]:
        assert path in page.text
    assert server.http.get("/redoc").status_code == 404


NVML = """
class NVMLError(Exception): ...
class Given:
    used, gpu = 3_000_000_000, 42
def nvmlInit(): ...
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(number): return number
def nvmlDeviceGetMemoryInfo(device): return Given
def nvmlDeviceGetUtilizationRates(device): return Given
"""


def test_gpus_are_shown_where_nvml_is(tmp_path: Path) -> None:
    """By what stands in for the driver's library here; without it nothing is shown, or needed."""
    program = (
        "from prometheus_client import CollectorRegistry, generate_latest\n"
        "from homeostat.metrics import Instruments\n"
        "from serving.counting.machine import Machine\n"
        "registry = CollectorRegistry()\n"
        "Machine(Instruments('server', registry), registry).refresh()\n"
        "print(generate_latest(registry).decode())\n"
    )
    (tmp_path / "pynvml.py").write_text(NVML)
    with_nvml = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{program}"
    shown = subprocess.run([sys.executable, "-c", with_nvml], capture_output=True, check=True)
    assert b'homeostat_gpu_memory_bytes{gpu="0"} 3e+09' in shown.stdout
    assert b'homeostat_gpu_utilisation_ratio{gpu="0"} 0.42' in shown.stdout
