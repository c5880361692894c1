from pd_bench.overhead.overhead import Latency, Overhead, overhead_table


def test_what_is_added_is_above_the_bare_timer() -> None:
    assert Latency.of([0.001, 0.003]) == Latency(0.002, 0.00298)
    overhead = Overhead(
        pace_s=0.02,
        num_tokens=10,
        bare=Latency(0.0005, 0.001),
        paced=Latency(0.00125, 0.0075),
        unpaced=Latency(0.0002, 0.001),
    )
    assert overhead.added == Latency(0.00075, 0.0065)
    assert not overhead.added.within_goal  # its p99 is over 5 ms
    assert Latency(0.001, 0.005).within_goal
    assert not Latency(0.0011, 0.002).within_goal
    verdicts = list(overhead_table(overhead).columns[-1].cells)
    assert verdicts == ["", "", "MISSED", "met"]
