"""Which server carries gRPC best: the figures of docs/decisions/0054-grpc-in-the-same-loop.md.

What is compared is the processor time of the server's own process for a request: the client runs beside it, and on a
machine of two processors it is the client that bounds the rate. Prints one Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from modelserve import wire
from modelserve.runtime.pool import WorkerPool
from modelserve.runtime.server.rpc import schema
from modelserve.testing import models

_FEATURES = 64
_CALLS = (1, 16, 64)
_PATH = f"/{schema.SERVICE}/ModelInfer"
_MESSAGES = schema.classes()
_SERVERS = ("asyncio, uvloop", "asyncio, standard loop", "8 threads", "64 threads")


def main() -> None:
    """Run every server in turn, `--rounds` times over, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--serve", choices=_SERVERS)
    parser.add_argument("--ask", nargs=2, metavar=("PORT", "CALLS"), type=int)
    chosen = parser.parse_args()
    if chosen.serve:
        _serve(chosen.serve)
    elif chosen.ask:
        print(asyncio.run(_ask(*chosen.ask, chosen.seconds)))
    else:
        found = {name: {calls: [] for calls in _CALLS} for name in _SERVERS}
        for _ in range(chosen.rounds):
            for name, by_calls in found.items():
                for calls, micros in _measured(name, chosen.seconds).items():
                    by_calls[calls].append(micros)
        print("| us of processor a request | " + " | ".join(map(str, _CALLS)) + " |")
        print("|---" * (len(_CALLS) + 1) + "|")
        for name, by_calls in found.items():
            print(f"| {name} | " + " | ".join(f"{statistics.median(cell):,.0f}" for cell in by_calls.values()) + " |")


def _measured(name: str, seconds: float) -> dict[int, float]:
    own = [sys.executable, __file__, "--seconds", str(seconds)]
    server = subprocess.Popen([*own, "--serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    found = {}
    for calls in _CALLS:
        before_s = _processor_s(server.pid)
        answered = subprocess.run([*own, "--ask", port, str(calls)], capture_output=True, text=True, check=True).stdout
        found[calls] = (_processor_s(server.pid) - before_s) / int(answered) * 1e6
    server.stdin.close()
    server.wait(30)
    return found


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _ask(port: int, calls: int, seconds: float) -> int:
    request = _MESSAGES["ModelInferRequest"](model_name="model")
    request.inputs.add(name="x", datatype="FP32", shape=[1, _FEATURES])
    request.raw_input_contents.append(np.ones((1, _FEATURES), np.float32).tobytes())
    content, answered = request.SerializeToString(), 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(_PATH)
        end = time.monotonic() + seconds

        async def one() -> None:
            nonlocal answered
            while time.monotonic() < end:
                await infer(content)
                answered += 1

        await asyncio.gather(*[one() for _ in range(calls)])
    return answered


def _serve(name: str) -> None:
    pool = WorkerPool(models.linear(_FEATURES, 10), workers=1)
    try:
        if name.endswith("threads"):
            _serve_by_threads(pool, int(name.split()[0]))
        else:
            import uvloop

            factory = uvloop.new_event_loop if "uvloop" in name else None
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(_serve_by_tasks(pool))
    finally:
        pool.close()


def _serve_by_threads(pool: WorkerPool, threads: int) -> None:
    def infer(asked: Any, context: Any) -> Any:
        return _written(pool.submit(_read(asked), 1).result())

    server = grpc.server(ThreadPoolExecutor(threads), handlers=[_handler(infer)])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(0)


async def _serve_by_tasks(pool: WorkerPool) -> None:
    async def infer(asked: Any, context: Any) -> Any:
        return _written(await pool.submit(_read(asked), 1))

    server = grpc.aio.server(handlers=[_handler(infer)])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


def _handler(infer: Callable[[Any, Any], Any]) -> Any:
    method = grpc.unary_unary_rpc_method_handler(
        infer,
        request_deserializer=_MESSAGES["ModelInferRequest"].FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    return grpc.method_handlers_generic_handler(schema.SERVICE, {"ModelInfer": method})


def _read(asked: Any) -> wire.Message:
    rows = np.frombuffer(asked.raw_input_contents[0], np.float32).reshape(tuple(asked.inputs[0].shape))
    return wire.encode_request({asked.inputs[0].name: rows}, ())


def _written(reply: wire.Reply) -> Any:
    response = _MESSAGES["ModelInferResponse"](model_name="model")
    for name, array in wire.decode(wire.reply_layout(reply.header), reply.body).items():
        response.outputs.add(name=name, datatype="FP32", shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    return response


if __name__ == "__main__":
    main()
