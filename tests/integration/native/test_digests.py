"""The native kernels give the same bits by every instruction set, compiler, processor, system."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pd_core.integer.compiler import Compiler, zig
from pd_core.integer.target import TARGETS, this_machine
from tests.kernel_digests import build_driver, digests, own_compiler

ARM64_SYSTEM = Path("/usr/aarch64-linux-gnu")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def _zig() -> Compiler:
    compiler = zig()
    if compiler is None:
        pytest.skip("the package ziglang is not installed")
    return compiler


def _emulator(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(names)} is installed")
    return found


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, by this system's own compiler."""
    return build_driver(own_compiler(), this_machine(), tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def expected(driver: Path) -> list[str]:
    """What plain C gives on this machine."""
    lines = digests([driver], "portable")
    assert lines is not None
    return lines


@pytest.fixture(params=[kernel.name for kernel in this_machine().kernels])
def kernel(request: pytest.FixtureRequest, driver: Path) -> str:
    """A kernel that this processor can run."""
    if digests([driver], request.param) is None:
        pytest.skip(f"this processor has no {request.param}")
    return str(request.param)


def test_every_instruction_set_gives_the_bits_of_plain_c(
    kernel: str, driver: Path, expected: list[str]
) -> None:
    assert digests([driver], kernel) == expected


def test_one_thread_gives_the_bits_of_two(expected: list[str]) -> None:
    first, second = [line for line in expected if line.startswith("pass ")]
    assert first == second


def test_nothing_is_read_beyond_its_end_and_nothing_is_undefined(
    kernel: str, expected: list[str], tmp_path: Path
) -> None:
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
    program = build_driver(own_compiler(), this_machine(), tmp_path, flags)
    assert digests([program], kernel) == expected


def test_zig_s_compiler_gives_the_same_bits(
    kernel: str, expected: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = build_driver(_zig(), this_machine(), tmp_path_factory.mktemp("zig"))
    assert digests([program], kernel) == expected


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """The command that runs the program for arm64; the processor's name goes second to last."""
    qemu = _emulator("qemu-aarch64-static", "qemu-aarch64")
    if not ARM64_SYSTEM.is_dir():
        pytest.skip(f"arm64's C library is not in {ARM64_SYSTEM} (Debian: libc6-arm64-cross)")
    program = build_driver(_zig(), TARGETS["aarch64-linux"], tmp_path_factory.mktemp("arm64"))
    return [qemu, "-L", ARM64_SYSTEM, "-cpu", program]


@pytest.mark.parametrize("name", ["portable", "dotprod"])
def test_arm64_gives_the_same_bits(name: str, arm64: list[str | Path], expected: list[str]) -> None:
    assert digests([*arm64[:-1], "max", arm64[-1]], name) == expected


def test_arm64_without_dot_products_has_plain_c_alone(
    arm64: list[str | Path], expected: list[str]
) -> None:
    command = [*arm64[:-1], "cortex-a53", arm64[-1]]
    assert digests(command, "dotprod") is None
    assert digests(command, "portable") == expected


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str | Path]]:
    """The command that runs the program for Windows."""
    wine = _emulator("wine64", "wine")
    folder = tmp_path_factory.mktemp("windows")
    program = build_driver(_zig(), TARGETS["x86_64-windows"], folder, ("-g0", "-s"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WINEPREFIX", str(folder / "wine"))
        patch.setenv("WINEDEBUG", "-all")
        yield [wine, program]


def test_windows_gives_the_same_bits(
    kernel: str, windows: list[str | Path], expected: list[str]
) -> None:
    assert digests(windows, kernel) == expected
