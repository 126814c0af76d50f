"""MLServer as its documentation shows a custom runtime; the third argument is its gRPC port.

One process (no parallel workers), adaptive batching on, no access log, no metrics endpoint.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import torch

# MLServer lives in an environment of its own, where mypy does not look
from mlserver import (  # type: ignore[import-not-found]
    MLModel,
    MLServer,
    ModelSettings,
    Settings,
)
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.settings import ModelParameters  # type: ignore[import-not-found]
from mlserver.types import (  # type: ignore[import-not-found]
    InferenceRequest,
    InferenceResponse,
)

from bench.peers import network


class Network(MLModel):  # type: ignore[misc]  # for mypy it is not there
    async def load(self) -> bool:
        self._network = network.load(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = torch.from_numpy(NumpyCodec.decode_input(payload.inputs[0])).float()
        with torch.inference_mode():
            probabilities = torch.softmax(self._network(rows), 1).numpy()
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output("probabilities", probabilities)],
        )


async def main(folder: str, port: int, grpc_port: int) -> None:
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=grpc_port,
        parallel_workers=0,
        metrics_endpoint=None,
        debug=False,
    )
    server = MLServer(settings)
    model = ModelSettings(
        name="bench",
        implementation=Network,
        parameters=ModelParameters(uri=str(Path(folder))),
        max_batch_size=64,
        max_batch_time=0.001,
    )
    await server.start([model])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
