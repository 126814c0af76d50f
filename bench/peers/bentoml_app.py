"""BentoML as its documentation shows a batchable service. Logs nothing.

Started by `python -m bench.peers.bentoml_app FOLDER PORT`, which becomes `bentoml serve`.
"""

from __future__ import annotations

import os
import sys

import bentoml  # type: ignore[import-not-found]  # lives in an environment of its own
import numpy as np
import torch

from bench.peers import network

FOLDER = "HOMEOSTAT_BENCH_PROJECT"


@bentoml.service(workers=1, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
class Network:
    def __init__(self) -> None:
        self._network = network.load(os.environ[FOLDER])

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=10_000)  # type: ignore[untyped-decorator]  # for mypy it is not there
    def predict(self, rows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = self._network(torch.from_numpy(np.asarray(rows, np.float32)))
            probabilities: np.ndarray = torch.softmax(found, 1).numpy()
        return probabilities


if __name__ == "__main__":
    os.environ[FOLDER] = sys.argv[1]
    arguments = ["serve", "bench.peers.bentoml_app:Network", "--host", "127.0.0.1"]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *arguments, "--port", sys.argv[2]])
