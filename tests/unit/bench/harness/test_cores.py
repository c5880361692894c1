import math
import os
from pathlib import Path

import pytest

from pd_bench.harness.cores import (
    CoreSplit,
    available_cores,
    num_processors,
    pinned,
    processor_quota,
    split_cores,
    thread_environment,
)


def test_each_side_gets_half_and_no_core_twice() -> None:
    assert split_cores(frozenset({0, 1})) == CoreSplit(server=(0,), client=(1,))
    assert split_cores(frozenset({9, 2, 4})) == CoreSplit(server=(2, 4), client=(9,))


def test_one_core_is_not_split() -> None:
    assert split_cores(frozenset({3})) == CoreSplit()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin")
def test_pinning_holds_inside_and_ends_outside() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    with pinned((core,)):
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before
    with pinned(()):
        assert os.sched_getaffinity(0) == before


def test_threads_do_not_spin_on_a_single_core() -> None:
    assert thread_environment((3,)) == {"OMP_WAIT_POLICY": "PASSIVE"}
    assert thread_environment((2, 3)) == thread_environment(()) == {}


def test_the_cores_of_this_process_are_known() -> None:
    assert available_cores() <= frozenset(range(os.cpu_count() or 1))


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
        # The tightest group of the line counts.
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "100000 100000"}, 1.0),
        ("0::/\n", {"cpu.max": "400000 100000"}, 4.0),
        ("3:cpu,cpuacct:/x\n0::/\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "50000"}, 0.5),
        ("3:cpu:/x\n0::/\n", {"cpu/x/cpu.cfs_quota_us": "-1"}, math.inf),
        ("4:memory:/x\n0::/\n", {"memory/x/cpu.max": "1 100000"}, math.inf),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
        ("0::/\n", {}, math.inf),
    ],
)
def test_a_container_s_limit_of_processors_is_known(
    tmp_path: Path, own: str, files: dict[str, str], quota: float
) -> None:
    root, groups = tmp_path / "groups", tmp_path / "own"
    groups.write_text(own)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
        (root / name).with_name("cpu.cfs_period_us").write_text("100000")
    assert processor_quota(root, groups) == quota


def test_a_machine_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert processor_quota(tmp_path, tmp_path / "none") == math.inf
    assert 0 < num_processors() <= (os.cpu_count() or 1)


def test_one_core_is_one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pd_bench.harness.cores.available_cores", lambda: frozenset({3}))
    assert num_processors() <= 1
