"""Building the native kernels: which compiler, what is said, and what happens without."""

import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pd_core.checkpoints.loading import load_model
from pd_core.errors import ConfigError, EngineError
from pd_core.integer import build as building
from pd_core.integer import kernel_library as kernels
from pd_core.integer.build import SOURCES, build, main
from pd_core.integer.compiler import Compiler, find_compilers
from pd_core.integer.integer_lm import IntegerLM
from pd_core.integer.native_passes import NativePasses
from pd_core.integer.target import TARGETS, Target, this_machine
from pd_core.models import Segment
from pd_core.store.model_names import RANDOM_TINY

LIBRARY = this_machine().library_name


def program(folder: Path, name: str, text: str) -> Path:
    """Write a program that can be run."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any compiler; returns the one folder of its programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    return folder


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder where the program looks for its library."""
    folder = tmp_path / "native"
    folder.mkdir()
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "kernel_library.py"))
    monkeypatch.setenv("PD_KERNEL", "auto")
    kernels.kernel_library.cache_clear()
    yield folder
    kernels.kernel_library.cache_clear()


def test_without_a_compiler_it_says_what_to_install(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_compilers() == []
    assert main(["--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no C compiler was found" in said
    assert "pip install ziglang" in said
    assert not (tmp_path / LIBRARY).exists()


def test_without_zig_another_machine_s_library_is_refused(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(bare, "cc", "")
    assert main(["--out", str(tmp_path), "--target", "aarch64-macos"]) == 2
    assert "ziglang" in capsys.readouterr().err


def test_cc_names_the_only_compiler(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bare, "gcc", "")
    monkeypatch.setenv("CC", "my-cc -m64")
    assert find_compilers() == [Compiler(("my-cc", "-m64"))]


def test_a_cc_that_is_not_there_is_named(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(bare, "gcc", "")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ConfigError, match="no-such-compiler cannot be run"):
        build(out=tmp_path)


def test_a_cc_that_is_no_command_line_is_named(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "gcc '-m64")
    with pytest.raises(ConfigError, match=r"gcc .*-m64.* cannot be run"):
        build(out=tmp_path)


def test_compilers_are_tried_in_order_and_each_failure_is_told(bare: Path, tmp_path: Path) -> None:
    for name in ("clang", "cc", "gcc"):
        program(bare, name, f"import sys; sys.exit('{name} has no headers')")
    with pytest.raises(ConfigError) as caught:
        build(out=tmp_path)
    told = str(caught.value)
    places = [told.index(f"{name} has no headers") for name in ("cc", "gcc", "clang")]
    assert places == sorted(places)
    assert list(tmp_path.iterdir()) == [bare], "nothing is left behind"


def test_a_library_that_does_not_load_is_not_kept(bare: Path, tmp_path: Path) -> None:
    """A compiler for another machine compiles without a complaint."""
    text = "import sys, pathlib; pathlib.Path(sys.argv[sys.argv.index('-o') + 1]).write_text('no')"
    program(bare, "cc", text)
    old = tmp_path / LIBRARY
    old.write_text("what was there", encoding="utf-8")
    with pytest.raises(ConfigError, match="does not load"):
        build(out=tmp_path)
    assert old.read_text(encoding="utf-8") == "what was there"


def test_a_folder_that_cannot_be_written_is_named(bare: Path, tmp_path: Path) -> None:
    program(bare, "cc", "")
    with pytest.raises(ConfigError, match="cannot be stored"):
        build(out=tmp_path / "absent")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler on this machine")
def test_what_is_built_loads_and_torch_is_not_needed(tmp_path: Path) -> None:
    code = (
        "import sys; from pd_core.integer.build import main\n"
        f"code = main(['--out', {str(tmp_path)!r}])\n"
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "it loads, and computes by" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [LIBRARY]
    assert kernels.open_library(tmp_path / LIBRARY).pd_isa(b"portable") == b"portable"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler on this machine")
def test_a_processor_without_vectors_falls_back_to_plain_c_and_the_log_says_so(
    sources: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same library, with a processor that says no to every question."""
    copied = tmp_path / "sources"
    shutil.copytree(SOURCES, copied, ignore=shutil.ignore_patterns("*.so", "build-*"))
    asked = re.findall(r"int (pd_has_\w+)\(void\)", (copied / "processor.c").read_text("utf-8"))
    assert len(asked) > 2
    answers = "".join(f"int {name}(void) {{ return 0; }}\n" for name in dict.fromkeys(asked))
    (copied / "processor.c").write_text('#include "processor.h"\n' + answers, encoding="utf-8")
    monkeypatch.setattr(building, "SOURCES", copied)
    build(out=sources)
    with caplog.at_level(logging.INFO):
        fallen_back = load_model(RANDOM_TINY, numerics="integer").model
    assert "the native kernels compute by portable" in caplog.text
    assert isinstance(fallen_back, IntegerLM)
    assert isinstance(fallen_back._passes, NativePasses)
    monkeypatch.setenv("PD_KERNEL", "off")
    kernels.kernel_library.cache_clear()
    by_torch = load_model(RANDOM_TINY, numerics="integer").model
    rows = [
        model.logits(model.forward(torch.arange(40), [Segment(model.make_cache(40), 0, 40)]))
        for model in (fallen_back, by_torch)
    ]
    assert torch.equal(*rows)
    monkeypatch.setenv("PD_KERNEL", "avx2")
    kernels.kernel_library.cache_clear()
    with pytest.raises(EngineError, match="'avx2', which this processor"):
        load_model(RANDOM_TINY, numerics="integer")


def test_a_missing_library_leaves_the_work_to_torch_and_a_chat_s_log_says_so_once(
    sources: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert kernels.kernel_library() is None
        assert kernels.kernel_library() is None
    (record,) = caplog.records
    assert "to the same bits" in record.message
    assert "--numerics integer keeps them equal" in record.message
    assert "python -m pd_core.integer.build" in record.message


@pytest.mark.parametrize(
    "text",
    ["int pd_abi(void) { return 0; }", "int pd_abi(void) { return 2; }", "int unrelated;"],
    ids=["of another version", "without its functions", "of something else"],
)
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler on this machine")
def test_a_library_of_another_version_leaves_the_work_to_torch_with_one_warning(
    text: str, sources: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = sources / "other.c"
    source.write_text(text, encoding="utf-8")
    Compiler(("cc",)).run(["-shared", "-fPIC", source, "-o", sources / LIBRARY])
    with caplog.at_level(logging.WARNING):
        assert kernels.kernel_library() is None
        assert kernels.kernel_library() is None
    (record,) = caplog.records
    assert "another version" in record.message


def test_a_file_that_is_no_library_leaves_the_work_to_torch(
    sources: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (sources / LIBRARY).write_bytes(b"\x7fELF and no more")
    with caplog.at_level(logging.WARNING):
        assert kernels.kernel_library() is None
    assert len(caplog.records) == 1


def test_switched_off_nothing_is_loaded_or_warned(
    sources: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PD_KERNEL", "off")
    with caplog.at_level(logging.WARNING):
        assert kernels.kernel_library() is None
    assert not caplog.records


@pytest.mark.parametrize("name", TARGETS)
def test_each_kernel_is_compiled_for_its_processor_only(name: str) -> None:
    """zig's default is the processor that it runs on; the portable kernel must run on all."""
    target = TARGETS[name]
    plain = target.kernels[0]
    assert target.flags(plain) == ("-DPD_PORTABLE",)
    for kernel in target.kernels:
        (processor,) = [f for f in target.flags(kernel, zig=True) if f.startswith("-mcpu=")]
        assert processor.split("+")[1:] == list(kernel.features)


@pytest.mark.parametrize(
    ("system", "machine", "expected"),
    [
        ("linux", "x86_64", TARGETS["x86_64-linux"]),
        ("linux", "aarch64", TARGETS["aarch64-linux"]),
        ("darwin", "arm64", TARGETS["aarch64-macos"]),
        ("linux", "riscv64", Target("riscv64", "linux")),
    ],
)
def test_this_machine_is_known_by_its_names(
    system: str, machine: str, expected: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert this_machine() == expected


def test_a_machine_of_another_kind_has_plain_c() -> None:
    target = Target("riscv64", "linux")
    assert [kernel.name for kernel in target.kernels] == ["portable"]
    assert target.library_name == "libpd_kernel.so"


def test_the_sources_lie_where_the_build_looks() -> None:
    names = {path.name for path in SOURCES.glob("*.c")}
    assert names == {"kernel.c", *(f"{name}.c" for name in building.OTHER_SOURCES)}
