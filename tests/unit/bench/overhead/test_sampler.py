"""The cost of choosing tokens: that both ways are timed and the same tokens are asked of both."""

import pytest

from pd_bench.overhead import sampler as module
from pd_bench.overhead.sampler import measure_sampler, sampler_table
from pd_core.errors import ConfigError


def test_every_case_is_timed_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_VOCABULARIES", (700,))
    monkeypatch.setattr(module, "_ROWS", (1, 3))
    costs = measure_sampler(2)
    assert [(cost.rows, cost.kind) for cost in costs] == [
        (rows, kind) for rows in (1, 3) for kind in module._KINDS
    ]
    assert all(cost.alone_s > 0 and cost.together_s > 0 for cost in costs)
    assert sampler_table(costs).row_count == len(costs)


def test_other_tokens_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_VOCABULARIES", (700,))
    monkeypatch.setattr(module, "sample", lambda logits, *_: [0] * len(logits))
    with pytest.raises(ConfigError, match="other tokens"):
        measure_sampler(1)
