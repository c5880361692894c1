"""A plain `vllm serve` process: vLLM's own OpenAI-compatible server, with nothing of ours in it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.held_port import held_port

__all__ = ["vllm_serve"]


@contextmanager
def vllm_serve(
    model: Path, folder: Path, *options: str, ready_within_s: float = 600
) -> Iterator[str]:
    """Start a server, yield its base URL when it is ready, and end it whatever happens.

    Args:
        model: the checkpoint.
        folder: where its log goes.
        options: further ones.
    """
    with held_port() as port, (folder / "vllm-serve.log").open("wb") as log:
        command = [
            # The console script of the CPU build does not start.
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
            *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", "tiny"),
            *("--dtype", "float32", "--enforce-eager", "--max-num-seqs", "4"),
            *("--kv-cache-memory-bytes", str(64 << 20), *options),
        ]
        environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            deadline = time.monotonic() + ready_within_s
            while not _ready(port):
                assert process.poll() is None, (folder / "vllm-serve.log").read_text()[-4000:]
                assert time.monotonic() < deadline, "vllm serve did not become ready"
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.HTTPError:
        return False
