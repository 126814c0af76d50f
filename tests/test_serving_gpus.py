"""Several workers and the GPUs they are given: on made-up ones, but for what a server says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from serving_kit import add_version, make_project, publish, running

from homeostat.model_runtime.devices import VISIBLE, Share, share_of, visible_devices
from homeostat.settings import Settings
from serving.processes.gpus import take_gpu


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("0", ("0",)),
        ("3, 1", ("3", "1")),
        ("GPU-8932f937,MIG-1c0e", ("GPU-8932f937", "MIG-1c0e")),
        ("0,-1,2", ("0",)),  # as CUDA reads it
        ("-1", ()),
        ("", ()),
        (None, ("0", "1", "2", "3")),
    ],
)
def test_only_what_is_visible_is_given_out(named: str | None, found: tuple[str, ...]) -> None:
    """By the variable that CUDA goes by; where it says nothing, all that the driver counts."""
    environ = {} if named is None else {VISIBLE: named}
    assert visible_devices(environ, lambda: 4) == found


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("gpus", range(1, 5))
def test_every_gpu_is_used_and_divided_evenly(count: int, gpus: int) -> None:
    """No GPU has two workers while another one has none; what each is told of how many share it is
    so."""
    shares = [share_of(number, count, "abcd"[:gpus]) for number in range(count)]
    devices = [share.device for share in shares]
    held = [devices.count(device) for device in "abcd"[:gpus]]
    assert max(held) - min(held) <= 1
    assert [share.sharing for share in shares] == [devices.count(each) for each in devices]


def test_where_no_gpu_is_known_of_all_share_the_first() -> None:
    """CUDA would put them there; a worker that is about to be dropped by a reload has a share."""
    assert share_of(1, 3, ()) == Share(None, 3)
    assert share_of(3, 2, "ab") == Share("b", 2)


def test_workers_on_one_gpu_divide_its_memory(tmp_path: Path) -> None:
    """Of two GPUs and three workers the first is for two, which take 0.4 each of the 0.8 that the
    settings say; the other one's worker takes it all. A server on a CPU is left as it is."""
    settings = make_project(tmp_path, "[serving]\ngpu_memory = 0.8\n")

    def given(number: int, settings: Settings, counted: int = 2) -> tuple[float, dict[str, str]]:
        environ: dict[str, str] = {}
        (taken,) = take_gpu([settings], number, 3, environ, lambda: counted)
        return taken.serving.gpu_memory, environ

    assert [given(number, settings) for number in range(3)] == [
        (0.4, {VISIBLE: "0"}),
        (0.8, {VISIBLE: "1"}),
        (0.4, {VISIBLE: "0"}),
    ]
    memory, environ = given(0, settings, counted=0)
    assert memory == pytest.approx(0.8 / 3)
    assert environ == {}
    without = make_project(tmp_path, '[serving]\ngpu_memory = 0.8\ndevice = "cpu"\n')
    assert given(0, without) == (0.8, {})


def test_each_worker_says_which_gpu_it_has(tmp_path: Path) -> None:
    """Of those that were visible to the server."""
    settings = make_project(tmp_path)
    publish(settings, add_version(settings, 1, runtime="onnx"), epoch=1)
    environ = {"HOMEOSTAT_SERVING_WORKERS": "3", VISIBLE: "5,GPU-7"}
    with running(settings.project, environ=environ) as server:
        said = re.findall(r"(worker \d) \S+: (GPU .*)", server.log.read_text())
    shared = "GPU 5 is for this worker and 1 more; each may take 45% of its memory"
    alone = "GPU GPU-7 is for this worker; each may take 90% of its memory"
    assert sorted(said) == [("worker 0", shared), ("worker 1", alone), ("worker 2", shared)]
