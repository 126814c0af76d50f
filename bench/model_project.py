"""`python -m bench.model_project FOLDER [--embedding] [--second]`: a small network, and a project
around it.

A process of its own, so that the one that measures never imports torch. It leaves homeostat.toml
with the cache and rollout record a server needs, weights.pt for the peers, and example.json: one
request and what every contestant must answer to it. With --embedding the last layer but one is
logged with each row, 64 numbers. With --second there is another version, 2, for a swap, and
second.json with what that one answers.
"""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from homeostat.jobs import write_atomically
from homeostat.records import Feature, ModelSpec, Rollout, Task, VersionRef, to_json
from homeostat.registry.cache import SPEC_FILE, digest_of, entry_path, hash_files, model_folder
from homeostat.settings import Settings, load

FEATURES, HIDDEN, WIDTH, CLASSES = 32, 128, 64, 3
# Shipped are 30 s; here each span of load pays for commits of its rows. The load's requests are all
# the same, and each is to be computed.
TOML = """
[model]
name = "bench"
[journal]
durability = "spool"
commit_every = "3s"
[serving]
coalesce = false
"""
EMBEDDING = 'embedding = "3"\n'


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(FEATURES, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, WIDTH),
        torch.nn.ReLU(),
        torch.nn.Linear(WIDTH, CLASSES),
    ).eval()


def write(folder: Path, *, embedding: bool = False, second: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model = network()
    torch.save(model.state_dict(), folder / "weights.pt")
    row = [round(value, 4) for value in torch.randn(FEATURES).tolist()]
    (folder / "homeostat.toml").write_text(TOML + (EMBEDDING if embedding else ""))
    settings = load(folder, {})
    _tell(folder / "example.json", model, row)
    publish(settings, cache(settings, model, "1"), epoch=1)
    if second:
        other = network(1)
        _tell(folder / "second.json", other, row)
        (folder / "second.ref").write_bytes(to_json(cache(settings, other, "2")))


def _tell(path: Path, model: torch.nn.Module, row: list[float]) -> None:
    """A request, and what the model answers to it."""
    with torch.inference_mode():
        probabilities = torch.softmax(model(torch.tensor([row])), 1)[0].tolist()
    path.write_text(json.dumps({"request": {"rows": [row]}, "probabilities": probabilities}))


def cache(
    settings: Settings,
    model: torch.nn.Module,
    version: str,
    shape: tuple[int, ...] = (FEATURES,),
) -> VersionRef:
    """As the registry's helper would, without it."""
    name = settings.model.name
    entry = entry_path(settings.cache_path, name, version)
    path = model_folder(entry) / "data" / "model.pt2"
    path.parent.mkdir(parents=True)
    program = torch.export.export(
        model,
        (torch.zeros(3, *shape),),
        dynamic_shapes=({0: torch.export.Dim("rows")},),
    )
    torch.export.save(program, path)
    spec = ModelSpec(
        model=name,
        version=version,
        runtime="torch",
        task=Task.CLASSIFICATION,
        features=tuple(Feature(name=f"x{i}") for i in range(math.prod(shape))),
        tensor_shape=shape,
        files=hash_files(model_folder(entry)),
    )
    (entry / SPEC_FILE).write_bytes(to_json(spec))
    return VersionRef(version=version, digest=digest_of(spec))


def publish(settings: Settings, champion: VersionRef, epoch: int) -> None:
    """As the loop does."""
    rollout = Rollout(
        model=settings.model.name, epoch=epoch, champion=champion, created_at=datetime.now(UTC)
    )
    settings.rollout_path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(settings.rollout_path, to_json(rollout))


if __name__ == "__main__":
    write(
        Path(sys.argv[1]),
        embedding="--embedding" in sys.argv[2:],
        second="--second" in sys.argv[2:],
    )
