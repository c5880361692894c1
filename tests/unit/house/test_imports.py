"""Importing a module does nothing but define things.

Checked in a fresh interpreter: what the test process has imported already proves nothing. Torch in
particular must come late, because MKL reads its reproducibility setting when torch is loaded.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).parents[3]


def _module_name(path: Path) -> str:
    """The import name of a file in a build root: the path below the root."""
    parts = path.relative_to(REPO).with_suffix("").parts[1:]
    return ".".join(parts).removesuffix(".__init__")


def _needs_vllm(path: Path) -> bool:
    """Whether a module's own top level imports vllm."""
    tops = ast.parse(path.read_text(encoding="utf-8")).body
    names = [a.name for node in tops if isinstance(node, ast.Import) for a in node.names]
    names += [str(node.module) for node in tops if isinstance(node, ast.ImportFrom)]
    return any(name.split(".")[0] == "vllm" for name in names)


PATHS = {_module_name(path): path for path in REPO.glob("*/pd_*/**/*.py")}
# Only vLLM imports these, in an environment of its own.
PLUGIN = sorted(name for name in PATHS if name.startswith("pd_server.vllm_plugin."))
MODULES = sorted(PATHS.keys() - set(PLUGIN))
ENTRIES = (".cli", ".__main__", ".commands.app", "pd_server.command")
ENTRY_POINTS = [name for name in MODULES if name.endswith(ENTRIES)]

# Imports what it is told to and says what changed meanwhile.
PROBE = """
import json, logging, os, signal, sys, threading
from importlib import import_module
names = json.loads(sys.argv[1])
handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
environment = dict(os.environ)
for name in names:
    import_module(name)
print(json.dumps({
    "heavy": sorted({"torch", "transformers", "numpy.testing", "httpx", "vllm"} & set(sys.modules)),
    "environment": sorted(set(environment.items()) ^ set(os.environ.items())),
    "threads": [thread.name for thread in threading.enumerate()],
    "log_handlers": len(logging.getLogger().handlers),
    "signals_kept": handlers == {s: signal.getsignal(s) for s in handlers},
}))
"""


def _import(names: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:pd_", "-c", PROBE, json.dumps(names)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(report, dict)
    return report


def test_modules_are_found() -> None:
    assert {"pd_core.errors", "pd_core", "pd_proto.v1.generation_pb2"} <= set(MODULES)


@pytest.mark.slow
def test_only_the_plugin_needs_vllm() -> None:
    assert PLUGIN, "the plugin's modules are found"
    assert [name for name in MODULES if _needs_vllm(PATHS[name])] == []


@pytest.mark.slow
def test_entry_points_import_no_torch() -> None:
    assert ENTRY_POINTS, "no command line module found"
    assert _import(ENTRY_POINTS)["heavy"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("pd_device_client.cli", ["chat", "--help"]),
        ("pd_device_client.cli", ["serve", "--help"]),
        ("pd_device_client.cli", ["chat", "a prompt", "--max-tokens", "0"]),
        ("pd_device_client.cli", ["serve", "--mode", "telepathy"]),
        ("pd_server.cli", ["--help"]),
        ("pd_server.cli", ["--threads", "0"]),
        ("pd_server.cli", ["--tls-cert", "lonely.pem"]),
        ("pd_bench.cli", ["startup", "--help"]),
    ],
)
def test_help_and_wrong_options_load_nothing_heavy(module: str, words: list[str]) -> None:
    heavy = {"torch", "transformers"} | ({"fastapi"} if module == "pd_server.cli" else set())
    code = (
        "import sys\n"
        f"from {module} import main\n"
        f"sys.argv = ['command', *{words}]\n"
        "try:\n    main()\n"
        f"finally:\n    print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == (0 if "--help" in words else 2), done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_vocabulary_imports_no_torch() -> None:
    names = ["errors", "generation", "sampling.rolling_hash", "sampling_params"]
    vocabulary = [f"pd_core.{name}" for name in names]
    rooms = (
        "pd_core.host.",
        "pd_core.files.",
        "pd_core.process.",
        "pd_core.sockets.",
        "pd_core.store.",
        "pd_device_client.planning.",
    )
    vocabulary += [name for name in MODULES if name.startswith(rooms)]
    assert _import(vocabulary)["heavy"] == []


@pytest.mark.slow
def test_importing_everything_has_no_side_effect() -> None:
    report = _import(MODULES)
    # torch itself sets variables; ours would carry one of these names.
    ours = [pair for pair in report["environment"] if pair[0].startswith(("MKL", "PD_", "OMP"))]
    assert ours == []
    assert report["threads"] == ["MainThread"]
    assert report["log_handlers"] == 0
    assert report["signals_kept"] is True
