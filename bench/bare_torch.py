"""`python -m bench.bare_torch FOLDER ROWS SECONDS`: the project's network as torch runs it, without
a server, on batches of so many rows; prints CPU microseconds a row."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from bench.image_project import SHAPE
from homeostat.registry.cache import entry_path, model_folder
from homeostat.settings import load


def main(folder: Path, rows: int, seconds: float) -> None:
    torch.set_num_threads(1)
    settings = load(folder, {})
    entry = entry_path(settings.cache_path, settings.model.name, "1")
    network = torch.export.load(model_folder(entry) / "data" / "model.pt2").module()
    batch = torch.randn(rows, *SHAPE)
    with torch.inference_mode():
        network(batch)
        began, before, done = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < seconds:
            network(batch)
            done += rows
        used = time.process_time() - before
    sys.stdout.write(json.dumps({"microseconds": 1e6 * used / done}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
