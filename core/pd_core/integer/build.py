"""Builds the native kernels: `python -m pd_core.integer.build`. Needs a C compiler, no torch."""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pd_core.errors import ConfigError, status_of
from pd_core.files.output import tell
from pd_core.integer.compiler import Compiler, find_compilers, zig
from pd_core.integer.target import TARGETS, Kernel, Target, this_machine

__all__ = ["OTHER_SOURCES", "SOURCES", "build", "compile_objects", "main"]

SOURCES = Path(__file__).with_name("native")
"""The folder of the C sources, and of the library that is built beside them."""

OTHER_SOURCES = ("pass", "processor", "threads")
"""What is compiled once; kernel.c is compiled for each instruction set."""

# No contraction and no shared roundings: the bits depend on it.
_FLAGS = (
    *("-std=c11", "-D_GNU_SOURCE", "-O3", "-fvisibility=hidden", "-fno-strict-aliasing"),
    *("-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno"),
)
# zig adds debugging information and checks of its own.
_ZIG_FLAGS = ("-g0", "-fno-sanitize=undefined")

_NO_COMPILER = (
    "no C compiler was found: neither the variable CC, nor cc, gcc, clang, nor the Python package "
    "ziglang. Install one, for example by `pip install ziglang`, and run "
    "`python -m pd_core.integer.build`. Until then torch computes the same, slower"
)
_NO_ZIG = "for another kind of machine the package ziglang is the compiler: pip install ziglang"

# Run by a process of its own: a broken library may end the one that loads it.
_CHECK = (
    "import sys; from pathlib import Path; from pd_core.integer.kernel_library import open_library;"
    "sys.stdout.write(open_library(Path(sys.argv[1])).pd_isa(b'').decode())"
)


def compile_objects(
    compiler: Compiler, target: Target, folder: Path, further: Sequence[str] = ()
) -> list[Path]:
    """Compile the sources into a folder; return the object files.

    Args:
        compiler: one that can compile for the target.
        target: the kind of machine.
        folder: an existing one.
        further: flags after all others.

    Raises:
        ConfigError: the compiler fails.
    """
    shared = () if target.system == "windows" else ("-fPIC",)
    common = (*_FLAGS, *shared, *(_ZIG_FLAGS if compiler.is_zig else ()))

    def compiled(source: str, kernel: Kernel, name: str) -> Path:
        flags = (*common, *target.flags(kernel, zig=compiler.is_zig), *further)
        compiler.run([*flags, "-c", SOURCES / f"{source}.c", "-o", folder / name])
        return folder / name

    jobs = [("kernel", kernel, f"{kernel.name}.o") for kernel in target.kernels]
    jobs += [(source, target.kernels[0], f"{source}.o") for source in OTHER_SOURCES]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [*pool.map(compiled, *zip(*jobs, strict=True))]


def build(target: Target | None = None, out: Path = SOURCES) -> Path:
    """Build the library and put it into the folder `out`; return its path.

    Args:
        target: the kind of machine; None: this one. Another is built by zig, for the oldest
            systems that it knows; a library for this machine must also load.
        out: where it goes, in place of an older one.

    Raises:
        ConfigError: there is no compiler, none of them can build it, or it cannot be stored.
    """
    compilers = find_compilers() if target is None else [c for c in [zig()] if c]
    if not compilers:
        raise ConfigError(_NO_COMPILER if target is None else _NO_ZIG)
    failures = []
    for compiler in compilers:
        tell(f"building the native kernels for {target or this_machine()} by {compiler}")
        try:
            path = _build_by(compiler, target or this_machine(), out)
        except ConfigError as error:
            failures.append(str(error))
        except OSError as error:
            raise ConfigError(f"the native kernels cannot be stored in {out}: {error}") from error
        else:
            tell(f"built {path}")
            return path
    raise ConfigError("the native kernels could not be built: " + "\n".join(failures))


def _build_by(compiler: Compiler, target: Target, out: Path) -> Path:
    # A folder beside the library's place: it comes there in one piece.
    with tempfile.TemporaryDirectory(dir=out, prefix="build-") as temporary:
        folder = Path(temporary)
        objects = compile_objects(compiler, target, folder)
        library = folder / target.library_name
        flags = ["-shared", *target.flags(zig=compiler.is_zig)]
        if compiler.is_zig:
            flags.append("-s")
        compiler.run([*flags, "-o", library, *objects, *target.libraries])
        if target == this_machine():
            tell(f"it loads, and computes by {_checked(library)}")
        return library.replace(out / library.name)


def _checked(library: Path) -> str:
    """Load the library as the program would; return the best instruction set for this processor."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", _CHECK, str(library)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended by {done.returncode}"])[-1]
        raise ConfigError(f"the library that was built does not load: {last}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Build as the command line says; return the exit code."""
    parser = argparse.ArgumentParser("python -m pd_core.integer.build", description=__doc__)
    parser.add_argument(
        "--target", choices=TARGETS, help="another kind of machine; by zig (default: this one)"
    )
    parser.add_argument(
        "--out", type=Path, default=SOURCES, help="the folder for it (default: beside the sources)"
    )
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        build(TARGETS.get(options.target), options.out)
    except (ConfigError, OSError) as error:
        tell(f"error: {error}")
        return status_of(ConfigError).exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
