"""Answers' lengths: forecast from their prompts', honest, bounded and kept."""

import json
import random
from pathlib import Path

import pytest

from pd_device_client.planning.answer_lengths import AnswerLengths, pinball
from pd_device_client.planning.kept_lengths import keep_lengths, kept_lengths


def _answer(drawn: random.Random, prompt_tokens: int) -> int:
    """Short prompts have long answers here, and long prompts short ones."""
    mean = 400 if prompt_tokens < 512 else 40
    return max(1, int(drawn.gauss(mean, mean / 5)))


def _pairs(seed: int, count: int) -> list[tuple[int, int]]:
    drawn = random.Random(seed)
    prompts = [drawn.choice((100, 200, 400, 1000, 3000)) for _ in range(count)]
    return [(prompt, _answer(drawn, prompt)) for prompt in prompts]


def test_without_history_the_limit_is_expected() -> None:
    lengths = AnswerLengths()
    assert lengths.expected(100, 512) == 512
    assert lengths.past == []


def test_the_limit_bounds_what_is_expected() -> None:
    assert AnswerLengths([(100, 900)] * 30).expected(100, 512) == 512


def test_the_guarded_quantile_holds_and_follows_the_prompt() -> None:
    lengths = AnswerLengths(_pairs(1, 1500))
    tried = _pairs(2, 1500)
    covered = sum(answer <= lengths.expected(prompt, 10_000) for prompt, answer in tried)
    assert 0.86 < covered / len(tried) < 0.94
    assert lengths.expected(1000, 10_000) < 100 < 400 < lengths.expected(200, 10_000)


def test_a_prompts_length_that_says_nothing_costs_nothing() -> None:
    drawn = random.Random(3)
    pairs = [(drawn.randrange(1, 8000), drawn.randrange(1, 300)) for _ in range(1000)]
    lengths = AnswerLengths(pairs)
    tried = [(drawn.randrange(1, 8000), drawn.randrange(1, 300)) for _ in range(1000)]
    ours = sum(pinball(0.9, answer, lengths.expected(prompt, 10_000)) for prompt, answer in tried)
    one = sum(pinball(0.9, answer, lengths.quantile_of_all(0.9)) for _, answer in tried)
    assert ours < 1.05 * one


def test_old_answers_are_forgotten_and_leave_nothing_behind() -> None:
    lengths = AnswerLengths([(100, 900)] * 3000)
    assert lengths.num_past == 2048
    for _ in range(2048):
        lengths.add(5000, 10)
    fresh = AnswerLengths([(5000, 10)] * 2048)
    assert lengths.past == fresh.past
    assert lengths.quantile_of_all(1.0) == 10
    assert lengths.expected(100, 10_000) == lengths.expected(5000, 10_000) == 10


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 63, 64, 100, 1000, 123_456])
def test_a_forecast_is_never_below_the_only_length_and_hardly_above(length: int) -> None:
    forecast = AnswerLengths([(100, length)]).expected(100, 1 << 40)
    assert length <= forecast <= length * 33 / 32


def test_pinball_is_least_at_the_quantile() -> None:
    answers = list(range(1, 101))
    costs = [sum(pinball(0.9, answer, guess) for answer in answers) for guess in range(1, 101)]
    assert 89 <= 1 + costs.index(min(costs)) <= 91


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pd-device" / "answer-lengths.json"


def test_lengths_are_kept_for_the_next_start(cache: Path) -> None:
    assert kept_lengths().past == []
    keep_lengths(AnswerLengths())
    assert not cache.exists()
    lengths = AnswerLengths(_pairs(4, 2048))
    keep_lengths(lengths)
    again = kept_lengths()
    assert again.past == lengths.past
    assert again.expected(200, 10_000) == lengths.expected(200, 10_000)
    assert cache.stat().st_size < 40_000


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}', "\x00" * 100])
def test_a_damaged_file_is_ignored(
    cache: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    assert kept_lengths().past == []
    assert len(caplog.messages) == (content != '{"x": 1}')
    keep_lengths(AnswerLengths([(1, 2)]))
    assert kept_lengths().past == [(1, 2)]


def test_a_damaged_entry_is_ignored_with_a_line(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep_lengths(AnswerLengths([(1, 2)]))
    entries = json.loads(cache.read_text())
    for entry in entries.values():
        entry["value"] = [[1, 3]]
    cache.write_text(json.dumps(entries))
    assert kept_lengths().past == []
    assert len(caplog.messages) == 1
    assert "damaged" in caplog.text


def test_what_is_no_pair_of_counts_is_left_out() -> None:
    odd: list[object] = [None, 3, "ab", [1], [1, 2, 3], [1, -2], [1.0, 2], [True, 2], [1, 1 << 60]]
    assert AnswerLengths([*odd, [7, 8]]).past == [(7, 8)]
