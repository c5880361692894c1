"""A server's threads, from times that are given."""

import pytest
import torch

from pd_core.checkpoints.loading import load_model
from pd_core.models.thread_trial import PassTimes
from pd_core.store.model_names import RANDOM_TINY
from pd_server.torch_engine import best_threads


@pytest.mark.parametrize(
    ("step_s", "threads"),
    [(0.05, 2), (0.2, 1)],  # one thread takes 0.064 s for the chunk, two 0.032 s
)
def test_chunk_and_decode_count_together(
    step_s: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [PassTimes(1, 0.001, 0.05), PassTimes(2, 0.0005, step_s)]
    chosen: list[int] = []
    monkeypatch.setattr(best_threads, "thread_counts", lambda numerics, most: [1, 2])
    monkeypatch.setattr(best_threads, "try_threads", lambda *_, **__: times)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    best_threads.use_best_threads(load_model(RANDOM_TINY, fast=True), 8)
    assert chosen == [threads]


def test_with_one_number_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best_threads, "thread_counts", lambda numerics, most: [1])
    monkeypatch.setattr(best_threads, "try_threads", lambda *_, **__: pytest.fail("it was tried"))
    best_threads.use_best_threads(load_model(RANDOM_TINY, fast=True), 8)
