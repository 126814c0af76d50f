"""LitServe as its documentation shows it; the third argument is max_batch_size. Logs nothing."""

import sys

import litserve  # type: ignore[import-not-found]  # lives in an environment of its own
import torch
from fastapi import Request

from bench.peers import network


class Network(litserve.LitAPI):  # type: ignore[misc]  # for mypy it is not there
    def __init__(self, folder: str, *, max_batch_size: int) -> None:
        super().__init__(max_batch_size=max_batch_size)
        self._folder = folder

    def setup(self, device: str) -> None:
        self._model = network.load(self._folder)

    # LitServe reads these annotations: Request means the body's JSON, and must not be a string, so
    # this module imports no annotations from the future; none on encode_response is its default
    def decode_request(self, request: Request) -> torch.Tensor:
        return torch.tensor(request["rows"][0])

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(inputs)

    def predict(self, rows: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return torch.softmax(self._model(rows), -1)

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        return list(output)

    def encode_response(self, output: torch.Tensor):  # type: ignore[no-untyped-def]  # by a type LitServe would check each answer
        return {"prediction": int(output.argmax()), "probabilities": output.tolist()}


if __name__ == "__main__":
    api = Network(sys.argv[1], max_batch_size=int(sys.argv[3]))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
