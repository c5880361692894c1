"""The load of other processes, from counters that are given."""

import os
import threading

import pytest

from pd_core.host import low_priority
from pd_core.host.other_load import OtherLoad, system_busy_s


class Counters:
    """A machine's counters."""

    def __init__(self) -> None:
        self.now_s = self.busy_s = self.own_s = 100.0

    def load(self) -> OtherLoad:
        """Read them."""
        return OtherLoad(lambda: self.busy_s, lambda: self.own_s, lambda: self.now_s)


def test_what_this_process_used_is_not_counted() -> None:
    machine = Counters()
    load = machine.load()
    machine.now_s += 2.0
    machine.busy_s += 5.0
    machine.own_s += 2.0
    assert load.cores() == 1.5


def test_a_short_span_says_what_the_last_one_said() -> None:
    machine = Counters()
    load = machine.load()
    assert load.cores() is None
    machine.now_s += 1.0
    machine.busy_s += 1.0
    assert load.cores() == 1.0
    machine.now_s += 0.4
    assert load.cores() == 1.0
    machine.now_s += 0.6
    assert load.cores() == 0.0


def test_counters_that_disagree_are_no_load() -> None:
    machine = Counters()
    load = machine.load()
    machine.now_s += 1.0
    machine.own_s += 1.0  # counted before the system's
    assert load.cores() == 0.0


def test_the_system_counts_up() -> None:
    before = system_busy_s()
    sum(range(100_000))
    assert system_busy_s() >= before >= 0


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="only Linux has priorities of threads")
def test_a_thread_steps_back_alone() -> None:
    found = []

    def run() -> None:
        low_priority.step_back()
        low_priority.step_back()  # no further
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [max(before, low_priority.NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
