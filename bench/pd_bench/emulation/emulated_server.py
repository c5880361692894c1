"""A real server process around the emulated engine, started with `python -m`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from pd_bench.emulation.cloud_engine import EmulatedCloudEngine
from pd_server.config import EngineConfig, ServerConfig
from pd_server.operations.logs import configure_logging
from pd_server.process import run_server

__all__ = ["command"]


def command(ready_file: Path, step_s: float, max_num_seqs: int, groups: int) -> list[str]:
    """Return the words that start one."""
    return [
        *(sys.executable, "-m", "pd_bench.emulation.emulated_server"),
        *(str(ready_file), str(step_s), str(max_num_seqs), str(groups)),
    ]


def _serve(
    ready_file: Annotated[Path, typer.Argument()],
    step_s: Annotated[float, typer.Argument()],
    max_num_seqs: Annotated[int, typer.Argument()],
    groups: Annotated[int, typer.Argument()],
) -> None:
    """Serve until SIGTERM."""
    configure_logging("warning", False)
    engine = EngineConfig(max_num_seqs=max_num_seqs)
    config = ServerConfig(engine=engine, grpc_port=0, http_port=0, drain_s=0.0)

    def build() -> EmulatedCloudEngine:
        return EmulatedCloudEngine(step_s, max_num_seqs, groups)

    raise typer.Exit(asyncio.run(run_server(config, build, ready_file)))


if __name__ == "__main__":
    typer.run(_serve)
