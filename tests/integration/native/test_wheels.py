"""The wheels for other systems: built by zig on this machine, and looked into."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from pd_core.integer.target import TARGETS, this_machine
from tests.library_files import LibraryFile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPO = Path(__file__).parents[3]
NATIVE = "pd_core/integer/native"
EXPORTS = {"abi", "close", "embed", "isa", "logits", "norm", "open", "queries", "run"}
KINDS = {"linux": "elf", "macos": "mach-o", "windows": "pe"}
NEEDS = {
    "linux": {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-aarch64.so.1"},
    "macos": {"/usr/lib/libSystem.B.dylib"},
    "windows": {"kernel32.dll"},
}
OLDEST = {"linux": (2, 17), "macos": (11, 0), "windows": ()}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git would give: a copy without what was built here."""
    copy = tmp_path_factory.mktemp("checkout") / "pd"
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        timeout=60,
        check=True,
    )
    for name in names.stdout.decode().split("\0"):
        if name and not name.startswith(("tests/", "docs/")) and (REPO / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, copy / name)
    return copy


def _pip_wheel(checkout: Path, out: Path, **variables: str) -> Path:
    """Build a wheel as `make wheels` does, but by what is installed here."""
    for package in ("hatchling", "ziglang"):
        pytest.importorskip(package, reason=f"the package {package} is not installed")
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(out), "."],
        cwd=checkout,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.mark.parametrize("name", TARGETS)
def test_a_wheel_holds_the_library_of_its_system(name: str, checkout: Path, tmp_path: Path) -> None:
    target = TARGETS[name]
    wheel = _pip_wheel(checkout, tmp_path, PD_KERNEL_TARGET=name)
    assert wheel.stem.endswith(f"-py3-none-{target.wheel_platform}")
    with zipfile.ZipFile(wheel) as archive:
        inside = [n for n in archive.namelist() if n.startswith(f"{NATIVE}/")]
        built = [n for n in inside if Path(n).suffix not in {".c", ".h"}]
        assert built == [f"{NATIVE}/{target.library_name}"]
        assert {f"{NATIVE}/kernel.c", f"{NATIVE}/dot.h"} <= set(inside)
        (about,) = [n for n in archive.namelist() if n.endswith(".dist-info/WHEEL")]
        assert "Root-Is-Purelib: false" in archive.read(about).decode()
        data = archive.read(built[0])
    library = LibraryFile.read(data)
    assert (library.kind, library.machine) == (KINDS[target.system], target.arch)
    functions = {name for name in library.exports if not name.startswith("_")}  # the linker's own
    assert functions == {f"pd_{export}" for export in EXPORTS}
    system_s = {n for n in library.needs if not n.startswith("api-ms-win-crt-")}
    assert system_s <= NEEDS[target.system]
    assert library.oldest_system <= OLDEST[target.system]
    assert library.signed == (target.system == "macos")
    assert all(kernel.name.encode() in data for kernel in target.kernels)
    assert len(data) < 500_000, "no debugging information"


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler on this machine")
def test_a_wheel_of_this_machine_is_built_by_its_own_compiler(
    checkout: Path, tmp_path: Path
) -> None:
    wheel = _pip_wheel(checkout, tmp_path, CC="cc")
    assert "-py3-none-any" not in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        assert f"{NATIVE}/{this_machine().library_name}" in archive.namelist()


@pytest.mark.parametrize(
    "variables",
    [{"CC": "no-such-compiler"}, {"CC": "false"}, {"PD_KERNEL": "off"}],
    ids=["no compiler", "a broken one", "switched off"],
)
def test_without_a_library_the_package_is_installed_all_the_same(
    variables: dict[str, str], checkout: Path, tmp_path: Path
) -> None:
    wheel = _pip_wheel(checkout, tmp_path, **variables)
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert f"{NATIVE}/kernel.c" in archive.namelist()
        assert not [n for n in archive.namelist() if "pd_kernel." in n]


def test_the_dependencies_alone_are_installed_without_sources(
    checkout: Path, tmp_path: Path
) -> None:
    """The images' first layer: an empty package."""
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy2(checkout / name, tmp_path / name)
    (tmp_path / "core" / "pd_core").mkdir(parents=True)
    (tmp_path / "core" / "pd_core" / "__init__.py").touch()
    wheel = _pip_wheel(tmp_path, tmp_path / "dist")
    assert wheel.name.endswith("-py3-none-any.whl")


def test_another_machine_s_name_is_refused(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="is none of x86_64-linux, aarch64-linux"):
        _pip_wheel(checkout, tmp_path, PD_KERNEL_TARGET="vax-vms")


@pytest.fixture(scope="module")
def release(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel for any machine, from a repository with an address."""
    url = "https://example.org/pd/"
    out = tmp_path_factory.mktemp("release")
    return _pip_wheel(checkout, out, PD_KERNEL="off", PD_REPOSITORY_URL=url)


def test_a_release_says_where_it_is_from_and_what_it_needs(release: Path) -> None:
    with zipfile.ZipFile(release) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        about = message_from_bytes(archive.read(name))
    urls = dict(line.split(", ") for line in about.get_all("Project-URL", []))
    assert urls["Repository"] == "https://example.org/pd"
    assert set(urls) >= {"Documentation", "Changelog", "Issues"}
    base = [line for line in about.get_all("Requires-Dist", []) if "extra ==" not in line]
    needed = {re.split(r"[^\w-]", line)[0] for line in base}
    # What the command of the same name imports, so that `pipx install pd-device` is enough.
    assert needed >= {"grpcio", "starlette", "uvicorn", "prompt-toolkit", "huggingface-hub"}
    assert not needed & {"grpcio-health-checking", "aiohttp", "matplotlib", "pytest"}
    extras = set(about.get_all("Provides-Extra", []))
    assert extras >= {"server", "device", "llama-cpp", "bench", "train"}


def test_a_build_without_an_address_has_none_and_a_wrong_one_is_refused(
    checkout: Path, tmp_path: Path
) -> None:
    wheel = _pip_wheel(checkout, tmp_path / "a", PD_KERNEL="off", PD_REPOSITORY_URL="")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        assert message_from_bytes(archive.read(name)).get("Project-URL") is None
    with pytest.raises(AssertionError, match="must begin with https://"):
        _pip_wheel(checkout, tmp_path / "b", PD_KERNEL="off", PD_REPOSITORY_URL="http://x.example")


def test_the_command_runs_from_the_wheel_alone(release: Path, tmp_path: Path) -> None:
    """With the libraries of this environment and none of the sources beside it."""
    with zipfile.ZipFile(release) as archive:
        archive.extractall(tmp_path)
    (points,) = tmp_path.glob("*.dist-info/entry_points.txt")
    assert "pd-device = pd_device_client.cli:main" in points.read_text()
    run = "import sys; sys.argv[0] = 'pd-device'; from pd_device_client.cli import main; main()"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PD_DEVICE_")}
    environment |= {"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path / "home")}
    for words, said in (
        (["--version"], "pd-device "),
        (["chat", "import json", "--model", "random-tiny", "--max-tokens", "3"], ""),
    ):
        done = subprocess.run(
            [sys.executable, "-P", "-c", run, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(said)
        assert done.stdout.strip()


def test_a_source_archive_holds_the_sources(checkout: Path, tmp_path: Path) -> None:
    hatchling = pytest.importorskip("hatchling.builders.sdist", reason="hatchling is not installed")
    (archive,) = hatchling.SdistBuilder(str(checkout)).build(directory=str(tmp_path))
    with tarfile.open(archive) as held:
        names = {name.partition("/")[2] for name in held.getnames()}
    assert {"hatch_build.py", f"core/{NATIVE}/kernel.c", f"core/{NATIVE}/dot_neon.h"} <= names
    assert not [name for name in names if "pd_kernel." in name]
