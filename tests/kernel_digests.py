"""The C program of tests/native, which prints the bits that each kernel gives, built and run."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from pd_core.errors import ConfigError
from pd_core.integer.build import SOURCES, compile_objects
from pd_core.integer.compiler import Compiler
from pd_core.integer.target import Target

__all__ = ["build_driver", "digests", "own_compiler"]

_PROGRAM = Path(__file__).parent / "native" / "digests.c"
_ABSENT = 77


def build_driver(
    compiler: Compiler, target: Target, folder: Path, further: Sequence[str] = ()
) -> Path:
    """Build the program from the kernels' own objects; return its path.

    Args:
        compiler: one that can compile for the target.
        target: the kind of machine.
        folder: an existing one.
        further: flags of compiler and linker.
    """
    objects = compile_objects(compiler, target, folder, further)
    program = folder / ("digests.exe" if target.system == "windows" else "digests")
    flags = [*target.flags(zig=compiler.is_zig), "-std=c11", "-D_GNU_SOURCE", f"-I{SOURCES}"]
    flags += ["-O1", "-ffp-contract=off", *further]
    compiler.run([*flags, _PROGRAM, *objects, "-o", program, *target.libraries])
    return program


def digests(command: Sequence[str | Path], kernel: str) -> list[str] | None:
    """Run the program for a kernel; return its lines, or None: the processor has it not."""
    done = subprocess.run(
        [*command, kernel], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode == _ABSENT:
        return None
    assert done.returncode == 0, done.stderr[-4000:]
    lines = done.stdout.splitlines()
    assert len(lines) > 200
    return lines


def own_compiler() -> Compiler:
    """Return the system's compiler; skips where there is none."""
    compiler = Compiler(("cc",))
    try:
        compiler.run(["--version"])
    except ConfigError as error:
        pytest.skip(str(error))
    return compiler
