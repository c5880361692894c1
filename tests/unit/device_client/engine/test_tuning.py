"""Threads and chunk from measured times."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pd_core.files.kept_results import keep
from pd_core.models.thread_trial import PassTimes
from pd_device_client.engine.threads import Threads
from pd_device_client.engine.tuning import Tuning, chunk_for, keep_tuning, kept_tuning

# Prefill gains from every thread, decode from two.
TUNING = Tuning(
    (PassTimes(1, 0.004, 0.030), PassTimes(2, 0.002, 0.0201), PassTimes(4, 0.001, 0.020))
)


@pytest.fixture(autouse=True)
def _restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_each_kind_of_pass_has_its_own_number_of_threads() -> None:
    assert TUNING.threads == (4, 2)  # the fewest near the best
    assert TUNING.prefill(3).threads == 2  # only numbers that were measured
    assert TUNING.prefill(0).threads == TUNING.decode(1).threads == 1


def test_fewer_threads_are_slower_by_what_was_measured() -> None:
    assert TUNING.slowdown(4) == (1.0, 1.0)
    assert TUNING.slowdown(1) == pytest.approx((4.0, 0.030 / 0.0201))


@pytest.mark.parametrize(
    ("token_s", "tokens"),
    [(0.001, 96), (1 / 1600, 160), (0.00625, 16), (1.0, 16), (1e-9, 512)],
)
def test_a_chunk_takes_a_tenth_of_a_second(token_s: float, tokens: int) -> None:
    assert chunk_for(token_s) == tokens


def test_a_tuning_is_kept_under_its_key() -> None:
    assert kept_tuning(["a cpu"]) is None
    keep_tuning(["a cpu"], TUNING)
    assert kept_tuning(["a cpu"]) == TUNING
    busy = Tuning(TUNING.times[:1], calm=False)
    keep_tuning(["a cpu"], busy)
    assert kept_tuning(["a cpu"]) == busy
    assert kept_tuning(["another"]) is None


@pytest.mark.parametrize(
    "odd",
    [
        *(None, [], {}, [True], [True, []], [1, [[1, 0.1, 0.1]]], [True, [[1, 0.1]]]),
        *([True, [[0, 0.1, 0.1]]], [True, [[1, 0.0, 0.1]]], [True, [[1.5, 0.1, 0.1]]]),
        *([True, [[1, 0.1, "fast"]]], [True, [1, 2, 3]], [True, {"1": 2}]),
    ],
)
def test_what_is_no_tuning_is_measured_again(odd: object) -> None:
    keep("tuning", "key", odd)
    assert kept_tuning("key") is None


def test_a_pass_runs_with_as_many_threads_as_are_polite_and_tells_what_it_costs() -> None:
    most, told = 4, list[tuple[float, float]]()
    threads = Threads(TUNING)
    threads.set_for(64)
    assert torch.get_num_threads() == 4
    threads.set_for(1)
    assert torch.get_num_threads() == 2
    threads.give_way(lambda: most, lambda *slower: told.append(slower))
    threads.set_for(1)
    assert told == []
    most = 1
    threads.set_for(64)
    assert torch.get_num_threads() == 1
    threads.set_for(1)
    most = 4
    threads.look()
    assert told == [(4.0, pytest.approx(0.030 / 0.0201)), (1.0, 1.0)]
