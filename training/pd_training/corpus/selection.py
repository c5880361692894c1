"""Choosing documents for a budget of tokens: by microscopic diversity, or at random.

`micro` is our reading of the micro strategy of arXiv 2505.24768, of which we know only a summary:
take the token types seen 10 to 500 times in all, cover them with few documents by reverse-greedy
pruning, then fill the budget by sampling documents that are dense in such types.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pd_core.errors import ConfigError
from pd_training.corpus.bpe import CorpusEncoder
from pd_training.corpus.documents import Document
from pd_training.corpus.token_store import held_out
from pd_training.recipe.settings import SELECTIONS, check_seed

__all__ = ["Selection", "choose", "mid_frequency_types", "prune_cover"]

_SEEN = (10, 500)

Types = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Selection:
    """What to choose; applied only to the training side.

    Attributes:
        strategy: "micro" or "random".
        budget_tokens: most tokens to choose, including the end-of-sequence tokens.

    Raises:
        ConfigError: the strategy is unknown, or the budget is not positive.
    """

    strategy: str
    budget_tokens: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in SELECTIONS:
            raise ConfigError(f"unknown --select {self.strategy!r}; known: {', '.join(SELECTIONS)}")
        if self.budget_tokens < 1:
            raise ConfigError("--select needs a --budget of tokens, 1 or more")
        check_seed(self.seed)

    def of(
        self,
        documents: Callable[[], Iterable[Document]],
        encoder: CorpusEncoder,
        held_out_fraction: float,
    ) -> Iterator[Document]:
        """Yield the held-out documents and the chosen ones of the rest, in corpus order.

        Args:
            documents: returns the corpus; called twice, and only counts are kept in between.

        Raises:
            ConfigError: no document fits the budget.
        """
        lengths: list[int] = []
        contents: list[tuple[Types, Types]] = []
        for document in documents():
            if not held_out(document.text, held_out_fraction):
                ids = encoder.encode(document.text)
                lengths.append(len(ids))
                contents.append(np.unique(np.array(ids[:-1], np.int64), return_counts=True))
        chosen = choose(self, lengths, contents)
        if not chosen:
            raise ConfigError(
                f"no document fits a budget of {self.budget_tokens} tokens; the shortest has "
                f"{min(lengths, default=0)}"
            )
        index = -1
        for document in documents():
            if held_out(document.text, held_out_fraction):
                yield document
                continue
            index += 1
            if index in chosen:
                yield document


def choose(
    selection: Selection, lengths: Sequence[int], contents: Sequence[tuple[Types, Types]]
) -> set[int]:
    """Return the chosen documents' indices.

    Args:
        lengths: tokens of each document.
        contents: token types of each document, with their counts.
    """
    generator = np.random.Generator(np.random.PCG64(selection.seed))
    uniform = 1.0 - generator.random(len(lengths))  # in (0, 1]
    if selection.strategy == "random":
        order = [int(i) for i in np.argsort(uniform, kind="stable")]
        return _filled(set(), order, lengths, selection.budget_tokens)
    wanted = mid_frequency_types(contents)
    kept = [frozenset(int(t) for t in types) & wanted for types, _ in contents]
    cover = prune_cover(kept, lengths, selection.budget_tokens)
    # Weighted sampling without replacement: the largest u^(1/w) first (Efraimidis and Spirakis).
    density = np.array([len(k) / n for k, n in zip(kept, lengths, strict=True)])
    with np.errstate(divide="ignore"):
        keys = np.where(density > 0, np.log(uniform) / density, -np.inf)
    order = [int(i) for i in np.argsort(-keys, kind="stable")]
    return _filled(cover, order, lengths, selection.budget_tokens)


def mid_frequency_types(contents: Sequence[tuple[Types, Types]]) -> frozenset[int]:
    """Return the types seen 10 to 500 times in all documents together."""
    totals: dict[int, int] = {}
    for types, counts in contents:
        for token, count in zip(types.tolist(), counts.tolist(), strict=True):
            totals[token] = totals.get(token, 0) + count
    return frozenset(t for t, count in totals.items() if _SEEN[0] <= count <= _SEEN[1])


def prune_cover(
    kept: Sequence[frozenset[int]], lengths: Sequence[int], budget_tokens: int
) -> set[int]:
    """Drop documents, lowest loss first, while they have no unique type or the budget is exceeded.

    A document's loss is the number of types that no other remaining document has, per token; of
    equal ones the longest goes first. Losses only grow as documents are dropped, so a heap of old
    losses is enough.
    """
    holders: dict[int, int] = {}
    for types in kept:
        for token in types:
            holders[token] = holders.get(token, 0) + 1

    def loss(i: int) -> tuple[float, int, int]:
        return sum(holders[token] == 1 for token in kept[i]) / lengths[i], -lengths[i], i

    heap = [loss(i) for i in range(len(kept))]
    heapq.heapify(heap)
    remaining, total = set(range(len(kept))), sum(lengths)
    while heap:
        known = heapq.heappop(heap)
        i = known[2]
        if (now := loss(i)) != known:
            heapq.heappush(heap, now)
            continue
        if now[0] > 0 and total <= budget_tokens:
            break
        remaining.discard(i)
        total -= lengths[i]
        for token in kept[i]:
            holders[token] -= 1
    return remaining


def _filled(chosen: set[int], order: list[int], lengths: Sequence[int], budget: int) -> set[int]:
    """Add documents in the given order, skipping those that no longer fit."""
    chosen = set(chosen)
    total = sum(lengths[i] for i in chosen)
    for i in order:
        if i not in chosen and total + lengths[i] <= budget:
            chosen.add(i)
            total += lengths[i]
    return chosen
