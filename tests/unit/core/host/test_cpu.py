from pathlib import Path

import pytest

from pd_core.host import cpu
from pd_core.host.cpu import cpu_description, num_cores

CORE = """processor\t: {core}
model name\t: A Processor
cpu MHz\t\t: 2600.{core}
flags\t\t: fpu avx512f
bogomips\t: 5192.{core}
"""


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


def test_model_and_flags_count_and_what_varies_does_not(cpuinfo: Path) -> None:
    cpuinfo.write_text(CORE.format(core=0) + "\n" + CORE.format(core=1))
    first = cpu_description()
    assert first is not None
    assert first.splitlines()[:2] == ["model name\t: A Processor", "flags\t\t: fpu avx512f"]
    cpuinfo.write_text(CORE.format(core=7))
    assert cpu_description() == first
    cpuinfo.write_text(CORE.format(core=0).replace(" avx512f", ""))
    assert cpu_description() not in (None, first)


def test_a_system_that_does_not_tell(cpuinfo: Path) -> None:
    assert cpu_description() is None


def test_there_is_a_core() -> None:
    assert num_cores() >= 1
