"""`python -m bench.grpc_client ADDRESS BODY CALLERS SECONDS`: callers of ModelInfer that each ask,
wait for the answer and ask again. Bytes go out and come in as they are. Prints what came of it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc
import uvloop

METHOD = "/inference.GRPCInferenceService/ModelInfer"
START_LIMIT = 60.0


async def main(address: str, body: bytes, callers: int, seconds: float) -> None:
    times: list[float] = []
    errors = 0
    async with grpc.aio.insecure_channel(address) as channel:
        infer = channel.unary_unary(METHOD)
        await _until_answered(infer, body)
        until = time.perf_counter() + seconds

        async def call() -> None:
            nonlocal errors
            while (began := time.perf_counter()) < until:
                try:
                    await infer(body)
                except grpc.aio.AioRpcError:
                    errors += 1
                else:
                    times.append(time.perf_counter() - began)

        before = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        took = time.perf_counter() - before
    times.sort()
    told = {
        "requests": len(times),
        "per_second": len(times) / took,
        "p50": 1000 * times[len(times) // 2],
        "p99": 1000 * times[len(times) * 99 // 100],
        "errors": errors,
    }
    sys.stdout.write(json.dumps(told) + "\n")


async def _until_answered(infer: grpc.aio.UnaryUnaryMultiCallable, body: bytes) -> None:
    deadline = time.perf_counter() + START_LIMIT
    while True:
        try:
            await infer(body, wait_for_ready=True, timeout=START_LIMIT)
        except grpc.aio.AioRpcError:  # it loads its model
            if time.perf_counter() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            main(sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), float(sys.argv[4]))
        )
