"""A small network in a cache, a project around it, and a real server process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import torch
from onnx import TensorProto, helper, numpy_helper

from homeostat.jobs import write_atomically
from homeostat.records import Feature, ModelSpec, Rollout, Task, Trial, VersionRef, to_json
from homeostat.registry.cache import SPEC_FILE, digest_of, entry_path, hash_files, model_folder
from homeostat.settings import Settings, load

MODEL = "shapes"
CLASSES = ("circle", "square", "star")
FEATURES = ("width", "height", "weight", "shine")
PATIENCE = 60.0


class Network(torch.nn.Module):
    """Different weights for every version, the same for the same version."""

    def __init__(self, version: int) -> None:
        super().__init__()
        torch.manual_seed(version)
        self.encoder = torch.nn.Linear(len(FEATURES), 5)
        self.head = torch.nn.Linear(5, len(CLASSES))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(torch.relu(self.encoder(rows.flatten(1))))
        return scores

    def expected(self, rows: list[list[float]]) -> tuple[list[str], list[list[float]]]:
        with torch.inference_mode():
            probabilities = torch.softmax(self(torch.tensor(rows, dtype=torch.float32)), 1)
        return [CLASSES[i] for i in probabilities.argmax(1).tolist()], probabilities.tolist()


class Breaks(Network):
    """Gives no numbers for rows whose sum is above a hundred."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows) * torch.sqrt(100 - rows.flatten(1).sum(1, keepdim=True))


def make_project(folder: Path, text: str = "", *, model: str = MODEL) -> Settings:
    """A project folder; `text` is appended to its homeostat.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = ", ".join(f'"{name}"' for name in CLASSES)
    (folder / "homeostat.toml").write_text(
        f'[model]\nname = "{model}"\nclasses = [{classes}]\n{text}'
    )
    return load(folder, {})


def add_version(
    settings: Settings,
    version: int,
    *,
    network: torch.nn.Module | None = None,
    runtime: str = "torch",
) -> VersionRef:
    """Put an exported network into the project's cache, as the registry's helper would.

    As "onnx" it answers the same, and a process that loads it starts in a third of the time: for
    tests of what goes on around a model.
    """
    name = settings.model.name
    entry = entry_path(settings.cache_path, name, str(version))
    if runtime == "torch":
        path = model_folder(entry) / "data" / "model.pt2"
        path.parent.mkdir(parents=True)
        program = torch.export.export(
            (network or Network(version)).eval(),
            (torch.zeros(3, 2, 2),),
            dynamic_shapes=({0: torch.export.Dim("rows")},),
        )
        torch.export.save(program, path)
    else:
        model_folder(entry).mkdir(parents=True)
        path = model_folder(entry) / "model.onnx"
        path.write_bytes(_as_onnx(Network(version)))
    spec = ModelSpec(
        model=name,
        version=str(version),
        runtime=runtime,
        task=Task.CLASSIFICATION,
        features=tuple(Feature(name=feature) for feature in FEATURES),
        tensor_shape=(2, 2),
        files=hash_files(model_folder(entry)),
    )
    (entry / SPEC_FILE).write_bytes(to_json(spec))
    return VersionRef(version=str(version), digest=digest_of(spec))


def _as_onnx(network: Network) -> bytes:
    """Its layers, node by node."""
    nodes = [
        helper.make_node("Flatten", ["rows"], ["flat"]),
        helper.make_node("Gemm", ["flat", "encoder.weight", "encoder.bias"], ["first"], transB=1),
        helper.make_node("Relu", ["first"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "head.weight", "head.bias"], ["logits"], transB=1),
    ]
    given = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 2, 2])
    found = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(CLASSES)])
    weights = network.state_dict().items()
    tensors = [numpy_helper.from_array(each.numpy(), name) for name, each in weights]
    graph = helper.make_graph(nodes, "network", [given], [found], tensors)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    return bytes(model.SerializeToString())


def publish(
    settings: Settings, champion: VersionRef, epoch: int, trial: Trial | None = None
) -> None:
    """Say who serves from now on, as the loop does."""
    path = settings.rollout_path
    path.parent.mkdir(parents=True, exist_ok=True)
    rollout = Rollout(
        model=settings.model.name,
        epoch=epoch,
        champion=champion,
        trial=trial,
        created_at=datetime.now(UTC),
    )
    write_atomically(path, to_json(rollout))


@dataclass
class Server:
    process: subprocess.Popen[str]
    url: str
    log: Path
    http: httpx.Client

    def wait_until_ready(self) -> None:
        self.wait_for(lambda: self.http.get("/health/ready").status_code == 200)

    def wait_for_version(self, version: int) -> None:
        self.wait_for(lambda: self.about()["serving"]["version"] == str(version))

    def about(self) -> dict[str, Any]:
        told: dict[str, Any] = self.http.get("/models").json()["models"][0]
        return told

    def wait_for(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def predict(self, rows: object, **members: object) -> httpx.Response:
        return self.http.post("/predict", json={"rows": rows, **members})

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def running(
    *folders: Path,
    wait: bool = True,
    headers: dict[str, str] | None = None,
    environ: dict[str, str] | None = None,
) -> Iterator[Server]:
    """`python -m serving` on a free port until the end of the block."""
    log = folders[0] / "server.log"
    command = [sys.executable, "-m", "serving"]
    for folder in folders:
        command += ["--project", str(folder)]
    more = {"HOMEOSTAT_SERVING_PORT": "0", "PYTHONSAFEPATH": "1", **(environ or {})}
    with log.open("a") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | more
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        url = json.loads(line)["url"]
        with httpx.Client(base_url=url, timeout=PATIENCE, headers=headers) as http:
            server = Server(process, url, log, http)
            if wait:
                server.wait_until_ready()
            yield server
    finally:
        process.kill()
        process.wait()
