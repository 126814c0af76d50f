"""`python -m bench.grpc_ask ADDRESS BODY`: one ModelInfer by gRPC's own client, as soon as the
server answers. Prints the largest probability, so that servers can be compared."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import grpc
import numpy as np

from serving.open_inference import open_inference_pb2 as messages

METHOD = "/inference.GRPCInferenceService/ModelInfer"
START_LIMIT = 60.0


def main(address: str, body: bytes) -> None:
    deadline = time.monotonic() + START_LIMIT
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(METHOD)
        while True:
            try:
                answer = infer(body, wait_for_ready=True, timeout=START_LIMIT)
                break
            except grpc.RpcError:  # it loads its model
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
    said = messages.ModelInferResponse.FromString(answer)
    names = [output.name for output in said.outputs]
    at = names.index("probabilities")
    if said.raw_output_contents:
        values = np.frombuffer(said.raw_output_contents[at], "<f4")
    else:
        contents = said.outputs[at].contents
        values = np.array(contents.fp32_contents or contents.fp64_contents)
    sys.stdout.write(f"{values.max():.4f}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).read_bytes())
