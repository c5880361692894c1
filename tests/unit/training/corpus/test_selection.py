"""Choosing documents: budgets hold, micro is diverse, the fast pruning equals a slow one."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from pd_core.errors import ConfigError
from pd_training.corpus.bpe import CorpusEncoder, train_tokenizer
from pd_training.corpus.documents import Document
from pd_training.corpus.selection import Selection, choose, mid_frequency_types, prune_cover
from pd_training.corpus.token_store import held_out

Contents = list[tuple[np.ndarray, np.ndarray]]


def random_documents(seed: int) -> tuple[list[list[int]], list[int], Contents]:
    """Documents whose token types range from rare to common."""
    rng = np.random.default_rng(seed)
    documents = [(rng.zipf(1.3, rng.integers(5, 60)) % 150).astype(int).tolist() for _ in range(80)]
    contents = [np.unique(np.array(d), return_counts=True) for d in documents]
    return documents, [len(d) for d in documents], contents


def slow_prune(kept: Sequence[frozenset[int]], lengths: Sequence[int], budget: int) -> set[int]:
    """Every loss anew for every document that goes."""
    remaining = set(range(len(kept)))
    while remaining:
        worst = None
        for i in remaining:
            others: set[int] = set().union(*(kept[j] for j in remaining if j != i))
            key = (len(kept[i] - others) / lengths[i], -lengths[i], i)
            worst = key if worst is None or key < worst else worst
        assert worst is not None
        if worst[0] > 0 and sum(lengths[i] for i in remaining) <= budget:
            break
        remaining.remove(worst[2])
    return remaining


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("budget", [100, 400, 10_000])
def test_pruning_equals_the_slow_one(seed: int, budget: int) -> None:
    documents, lengths, contents = random_documents(seed)
    wanted = mid_frequency_types(contents)
    totals = Counter(token for document in documents for token in document)
    assert wanted == {t for t, n in totals.items() if 10 <= n <= 500}
    assert 5 < len(wanted) < len(totals)
    kept = [frozenset(d) & wanted for d in documents]
    found = prune_cover(kept, lengths, budget)
    assert found == slow_prune(kept, lengths, budget)
    if budget == 10_000:
        assert set().union(*(kept[i] for i in found)) == wanted
        assert len(found) < 30


@pytest.mark.parametrize("strategy", ["micro", "random"])
def test_the_budget_holds_and_the_seed_decides(strategy: str) -> None:
    _, lengths, contents = random_documents(7)
    picks = [choose(Selection(strategy, 900, seed), lengths, contents) for seed in (0, 0, 1)]
    for pick in picks:
        assert 800 < sum(lengths[i] for i in pick) <= 900
    assert picks[0] == picks[1] != picks[2]


def test_micro_covers_more_types_than_random() -> None:
    documents, lengths, contents = random_documents(11)
    wanted = mid_frequency_types(contents)

    def covered(strategy: str, seed: int) -> int:
        pick = choose(Selection(strategy, 250, seed), lengths, contents)
        return len(wanted & {token for i in pick for token in documents[i]})

    for seed in range(5):
        assert covered("micro", seed) > covered("random", seed)


def test_the_held_out_side_stays_whole() -> None:
    texts = [f"text {i} about {i % 7} and {i % 5}\n" for i in range(60)]
    encoder = CorpusEncoder(train_tokenizer(texts, 280))
    documents = [Document(str(i), text) for i, text in enumerate(texts)]
    chosen = list(Selection("random", 200).of(lambda: documents, encoder, 0.2))
    held = [d for d in documents if held_out(d.text, 0.2)]
    training = [d for d in chosen if d not in held]
    assert [d for d in chosen if d in held] == held
    assert 150 < sum(len(encoder.encode(d.text)) for d in training) <= 200
    assert chosen == sorted(chosen, key=lambda d: int(d.source))
    with pytest.raises(ConfigError, match="no document fits a budget of 3 tokens"):
        list(Selection("micro", 3).of(lambda: documents, encoder, 0.2))


def test_bad_selections_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown --select"):
        Selection("macro", 10)
    with pytest.raises(ConfigError, match="--budget"):
        Selection("micro", 0)
    with pytest.raises(ConfigError, match="the seed is -5"):
        Selection("random", 10, -5)
