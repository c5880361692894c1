"""When the engine gives way, and to what."""

import pytest

from pd_device_client.device.battery import Battery, BatteryPolicy
from pd_device_client.device.manners import GivesWay, Manners


class Surroundings:
    """A clock, other programs and a battery."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.others = 0.0
        self.battery: Battery | None = None
        self.battery_reads = 0

    def read_battery(self) -> Battery | None:
        """Count and read."""
        self.battery_reads += 1
        return self.battery

    def manners(self, cores: int, most: int) -> Manners:
        """Return manners amid them."""
        return Manners(
            *(cores, most, BatteryPolicy(), lambda: self.now_s),
            others=lambda: self.others,
            battery=self.read_battery,
        )


@pytest.mark.parametrize(
    ("cores", "most", "others", "threads"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.4, 2),
        (2, 2, 0.6, 1),
        (2, 2, 5.0, 1),  # never none
        (64, 2, 40.0, 2),  # a small share of a large machine that has cores to spare
        (64, 2, 63.0, 1),
        (8, 8, 3.2, 5),
    ],
)
def test_threads_for_the_cores_that_others_leave(
    cores: int, most: int, others: float, threads: int
) -> None:
    around = Surroundings()
    manners = around.manners(cores, most)
    assert manners.most_threads() == most
    around.now_s, around.others = 1.0, others
    assert manners.most_threads() == threads
    gives_way = GivesWay.PROGRAMS if threads < most else GivesWay.NOTHING
    assert manners.gives_way is gives_way


def test_it_looks_once_a_second_and_takes_the_cores_back() -> None:
    around = Surroundings()
    manners = around.manners(2, 2)
    around.now_s, around.others = 1.0, 2.0
    assert manners.most_threads() == 1
    around.now_s, around.others = 1.9, 0.0
    assert manners.most_threads() == 1
    around.now_s = 2.0
    assert manners.most_threads() == 2


def test_a_low_battery_leaves_one_thread_and_is_read_seldom() -> None:
    around = Surroundings()
    around.battery = Battery(19, plugged=False)
    manners = around.manners(8, 8)
    for second in range(1, 30):
        around.now_s = float(second)
        assert manners.most_threads() == 1
    assert manners.gives_way is GivesWay.BATTERY
    assert around.battery_reads == 1
    around.battery = Battery(19, plugged=True)
    around.now_s = 31.0
    assert manners.most_threads() == 8
