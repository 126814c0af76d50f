"""Models of other flavors answer from a worker process, whose troubles stay its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from registry_fixtures import LoggedModels

from homeostat.errors import ModelError
from homeostat.model_runtime.contract import Batch, LoadedModel
from homeostat.model_runtime.loading import load
from homeostat.registry.cache import entry_path, model_folder, read_spec, verify
from homeostat.registry.mlflow_registry import Registry

CLASSES = ("go", "stop", "wait")


def fetched(logged_models: LoggedModels, project: Path, tag: str) -> Path:
    settings = logged_models.settings(project, model=f"worker-{tag}")
    registry = Registry(settings)
    logged = registry.find_model(f"run-{tag}")
    assert logged is not None
    version = registry.register(logged, f"run-{tag}")
    ref = registry.fetch(version, feature_names=())
    entry = entry_path(settings.cache_path, settings.model.name, version)
    verify(entry, ref.digest)
    return entry


def start(entry: Path, embedding: str | None = None) -> LoadedModel:
    return load(entry, read_spec(entry), embedding=embedding, classes=(), threads=1)


@pytest.fixture(scope="module")
def colours(
    logged_models: LoggedModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoadedModel]:
    model = start(fetched(logged_models, tmp_path_factory.mktemp("colours"), "colours"))
    yield model
    model.close()


@pytest.fixture(scope="module")
def pickled_entry(logged_models: LoggedModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fetched(logged_models, tmp_path_factory.mktemp("pickled"), "pickled")


@pytest.fixture(scope="module")
def pickled(pickled_entry: Path) -> Iterator[LoadedModel]:
    model = start(pickled_entry, "encoder")
    yield model
    model.close()


def columns(**values: Any) -> Batch:
    row: dict[str, Any] = {"count": [9], "width": [0.5], "colour": ["green"]}
    return Batch(1, columns={**row, **values})


def numbers(*values: float) -> Batch:
    return Batch(len(values), matrix=np.repeat(np.array(values, np.float32)[:, None], 6, axis=1))


def test_columns_of_every_kind_and_classes_in_words(colours: LoadedModel) -> None:
    """Numbers and strings go in by name; class names and their probabilities come out."""
    batch = Batch(
        3, columns={"count": [9, 1, 5], "width": [0.5] * 3, "colour": ["green", "blue", "red"]}
    )
    outputs = colours.predict(batch)
    assert colours.loop_rows == 0
    assert colours.spec.classes == CLASSES
    assert outputs.predictions == ["go", "wait", "stop"]
    assert outputs.probabilities is not None
    assert outputs.probabilities.dtype == np.float32
    likeliest = [CLASSES[i] for i in outputs.probabilities.argmax(axis=1)]
    assert likeliest == outputs.predictions


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"count": ["many"]}, '"count" is not all numbers'),
        ({"count": [None]}, '"count" takes whole numbers, and one is missing'),
        ({"count": [1.5]}, '"count" takes whole numbers'),
    ],
)
def test_values_the_signature_does_not_take(
    colours: LoadedModel, values: dict[str, Any], said: str
) -> None:
    """A wrong value is named, and the next batch is answered as ever."""
    with pytest.raises(ModelError, match=said):
        colours.predict(columns(**values))
    assert colours.predict(columns()).predictions == ["go"]


def test_a_pickled_network_with_its_own_module(pickled_entry: Path, pickled: LoadedModel) -> None:
    """Code shipped with the model runs in the worker alone; its embedding comes by a hook."""
    outputs = pickled.predict(numbers(1.0, 2.0, 3.0))
    assert "their_network" not in sys.modules
    assert outputs.embedding is not None
    assert outputs.embedding.shape == (3, 4)
    assert outputs.probabilities is not None
    np.testing.assert_allclose(outputs.probabilities.sum(axis=1), 1, atol=1e-6)
    assert outputs.predictions == [str(i) for i in outputs.probabilities.argmax(axis=1)]
    assert not list(model_folder(pickled_entry).rglob("*.pyc"))


def test_what_the_models_own_code_raises(pickled: LoadedModel) -> None:
    """The last line of the model's own traceback comes back, and the next batch is answered."""
    before = pickled.predict(numbers(1.0))
    with pytest.raises(ModelError, match="ValueError: their network cannot take this"):
        pickled.predict(numbers(1e7))
    np.testing.assert_array_equal(pickled.predict(numbers(1.0)).embedding, before.embedding)


def test_a_worker_that_died_is_started_again(pickled: LoadedModel) -> None:
    """The batch that killed it fails; the next one finds a new worker."""
    before = pickled.predict(numbers(1.0)).predictions
    with pytest.raises(ModelError, match="exit status 9"):
        pickled.predict(numbers(-1e7))
    assert pickled.predict(numbers(1.0)).predictions == before


def test_a_model_that_cannot_be_loaded_leaves_no_worker(pickled_entry: Path) -> None:
    """A wrong embedding fails at load, names the modules there are, and ends its worker."""
    before = psutil.Process().children()
    with pytest.raises(ModelError, match="it has: encoder, head"):
        start(pickled_entry, "encodr")
    assert psutil.Process().children() == before


def test_the_worker_sees_little_of_our_environment(
    pickled_entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a model needs to run gets through; keys and passwords do not, whatever their names."""
    for name in ("AWS_SECRET_ACCESS_KEY", "SLACK_SECRET", "HOMEOSTAT_STATE_URL", "MLFLOW_TOKEN"):
        monkeypatch.setenv(name, "not-to-be-seen")
    monkeypatch.setenv("LC_TIME", "C")
    before = {child.pid for child in psutil.Process().children()}
    model = start(pickled_entry)
    try:
        (worker,) = (c for c in psutil.Process().children() if c.pid not in before)
        seen = worker.environ()
    finally:
        model.close()
    assert "not-to-be-seen" not in seen.values()
    assert seen["PATH"] == os.environ["PATH"]
    assert seen["LC_TIME"] == "C"


def test_the_worker_ends_with_its_parent(pickled_entry: Path) -> None:
    """However its parent ends, no worker stays behind."""
    program = (
        "import pathlib, psutil, time\n"
        "from homeostat.model_runtime.loading import load\n"
        "from homeostat.registry.cache import read_spec\n"
        f"entry = pathlib.Path({str(pickled_entry)!r})\n"
        "model = load(entry, read_spec(entry), embedding=None, classes=(), threads=1)\n"
        "print(psutil.Process().children()[0].pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    with contextlib.suppress(psutil.NoSuchProcess):  # it may go between two looks
        while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the worker outlived its parent"
            time.sleep(0.05)
