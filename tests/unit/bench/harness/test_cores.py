import os

import pytest

from pd_bench.harness.cores import CoreSplit, num_processors, split_cores, thread_environment
from pd_core.host.affinity import available_cores, pinned


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


@pytest.mark.parametrize(("quota", "processors"), [(None, 2), (0.5, 0.5), (1.5, 1.5), (8.0, 2)])
def test_a_container_s_limit_of_processors_counts(
    quota: float | None, processors: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pd_bench.harness.cores.available_cores", lambda: frozenset({0, 1}))
    monkeypatch.setattr("pd_bench.harness.cores.cpu_quota", lambda: quota)
    assert num_processors() == processors


def test_one_core_is_one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pd_bench.harness.cores.available_cores", lambda: frozenset({3}))
    assert num_processors() <= 1
