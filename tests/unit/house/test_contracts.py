"""The import contracts name every room and every transport there is."""

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).parents[3]
PROJECT: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS: dict[str, dict[str, Any]] = {
    each["name"]: each for each in PROJECT["tool"]["importlinter"]["contracts"]
}
CLIENTS = {"aiohttp", "httpx", "httpx2", "requests", "websockets"}
TRANSPORTS = {"grpc", "starlette", "uvicorn"} | CLIENTS
# The service, what registers it, and the link.
KNOW_MESSAGES = {"pd_server.rpc", "pd_server.server", "pd_device_client.cloud"}


def _imported_tops(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


def _rooms(package: str) -> set[str]:
    """Each folder and module of a package that holds code."""
    (folder,) = REPO.glob(f"*/{package}")
    inside = [path for path in folder.iterdir() if (path / "__init__.py").is_file()]
    inside += [path for path in folder.glob("*.py") if path.stem != "__init__"]
    return {f"{package}.{path.stem}" for path in inside}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "core knows no transport and no other package of ours",
        "training stands on core only",
        "policy knows no transport",
    ],
)
def test_every_transport_that_is_used_is_forbidden_where_none_may_be(name: str) -> None:
    modules = [path for path in REPO.glob("*/pd_*/**/*.py") if "_pb2" not in path.name]
    used = TRANSPORTS & set().union(*map(_imported_tops, modules))
    assert {"grpc", "httpx2", "starlette"} <= used
    assert used <= set(CONTRACTS[name]["forbidden_modules"])


def test_every_room_is_told_whether_it_may_know_the_messages() -> None:
    contract = CONTRACTS["generated messages are for the server's wire and the device's link alone"]
    told = set(contract["source_modules"]) | KNOW_MESSAGES
    rooms = _rooms("pd_server") | _rooms("pd_device_client")
    assert told == rooms | {"pd_core", "pd_bench", "pd_training"}
