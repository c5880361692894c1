"""Where one answer stands in its form: which tokens may come next.

It is always asked about an answer given from its beginning, so nothing can be missed: a
continuation, a guess that was wrong, a token of the other side. It remembers what it was asked
before, and takes in, or takes back, only the difference.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import takewhile
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from pd_core.errors import InvalidConstraint
from pd_core.grammar.compiled import reason

if TYPE_CHECKING:
    from llguidance import LLMatcher

__all__ = ["COMPILE_S", "Matcher"]

T = TypeVar("T")

COMPILE_S = 2.0
"""A form that takes longer is refused; the library's own limits end nearly all much sooner."""
_RENEWALS = 2


class Matcher:
    """One answer's place in its form. Not thread-safe.

    Args:
        form: the compiled form, or what it will be; all answers of the form share it, and what the
            library finds out about it grows with each.
        renew: compiles the form anew, once it has grown too large for the library's limits.
        num_token_ids: V.
        eos_token_ids: that end an answer; allowed where the form is complete.

    Attributes:
        end_mask: the mask that allows nothing but an end.
    """

    def __init__(
        self,
        form: "Future[LLMatcher]",
        renew: "Callable[[Future[LLMatcher]], Future[LLMatcher]]",
        num_token_ids: int,
        eos_token_ids: Sequence[int],
    ) -> None:
        self._form = form
        self._renew = renew
        self._renewals = _RENEWALS
        self._due_s = time.perf_counter() + COMPILE_S
        self._num_words = -(-num_token_ids // 32)
        self._eos_token_ids = frozenset(eos_token_ids)
        self.end_mask = np.zeros(self._num_words, np.int32)
        for token_id in self._eos_token_ids:
            self.end_mask.view(np.uint32)[token_id // 32] |= np.uint32(1 << token_id % 32)
        self._matcher: LLMatcher | None = None
        self._taken = list[int]()
        self._mask: NDArray[np.int32] | None = None  # behind those taken

    @property
    def form(self) -> "Future[LLMatcher]":
        """The compiled form; whoever may not block waits for it."""
        return self._form

    @property
    def ready(self) -> bool:
        """Whether the form is compiled, or will not be used any more."""
        return self._form.done() or time.perf_counter() >= self._due_s

    def mask(self, token_ids: Sequence[int]) -> NDArray[np.int32]:
        """Return which tokens may follow an answer's tokens; behind its end, only another end.

        Args:
            token_ids: the answer so far.

        Returns:
            (ceil(V / 32),): bit i % 32 of word i // 32 says whether token i may; not to be changed.

        Raises:
            InvalidConstraint: the form cannot be used, these tokens do not fit it, or no token may
                follow them.
        """
        if not self._eos_token_ids.isdisjoint(token_ids):  # a guess at what follows the end
            return self.end_mask
        words = self._behind(token_ids, self._words)
        if not words.any():
            raise InvalidConstraint(
                f"no token of this model's vocabulary fits the asked form at position "
                f"{len(token_ids)}; ask for another form"
            )
        return words

    def num_fitting(self, token_ids: Sequence[int], more: Sequence[int]) -> int:
        """Return how many of more tokens, one after another, may follow an answer's tokens.

        Raises:
            InvalidConstraint: the form cannot be used, or the answer's own tokens do not fit it.
        """
        if not self._eos_token_ids.isdisjoint(token_ids):
            return 0
        plain = list(takewhile(lambda token_id: token_id not in self._eos_token_ids, more))

        def fitting(matcher: "LLMatcher") -> int:
            count = self._take(matcher, plain)
            ends = count == len(plain) < len(more)
            return count + (ends and matcher.is_accepting())

        return self._behind(token_ids, fitting)

    def _behind(self, token_ids: Sequence[int], ask: "Callable[[LLMatcher], T]") -> T:
        """Ask the library's matcher behind these tokens."""
        while True:
            matcher = self._matcher
            if matcher is None:
                matcher = self._matcher = self._compiled().deep_copy()
                self._taken.clear()
                self._mask = None
            fits = self._follow(matcher, token_ids)
            found = ask(matcher) if fits else None
            if not matcher.is_error():
                if found is not None:
                    return found
                raise InvalidConstraint(
                    f"token {len(self._taken)} of the answer does not fit the form asked for; "
                    "continue an answer with the form that it began with"
                )
            self._matcher = None
            if not self._renewals:
                raise InvalidConstraint(
                    "the form asked for is too complex: it became too large at position "
                    f"{len(token_ids)} ({reason(matcher)})"
                )
            self._renewals -= 1
            self._form, self._due_s = self._renew(self._form), time.perf_counter() + COMPILE_S

    def _follow(self, matcher: "LLMatcher", token_ids: Sequence[int]) -> bool:
        """Bring the matcher behind these tokens; whether they fit."""
        taken = self._taken
        common = len(taken)
        if list(token_ids[:common]) != taken:
            pairs = zip(taken, token_ids, strict=False)
            common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            matcher.rollback(len(taken) - common)
            del taken[common:]
            self._mask = None
        new = list(token_ids[common:])
        return self._take(matcher, new) == len(new)

    def _take(self, matcher: "LLMatcher", token_ids: list[int]) -> int:
        """Take in tokens as far as they fit; return how many do."""
        if not token_ids:
            return 0
        self._mask = None
        count = matcher.try_consume_tokens(token_ids)
        self._taken += token_ids[:count]
        return count

    def _words(self, matcher: "LLMatcher") -> NDArray[np.int32]:
        """Return the mask behind the tokens taken, found once."""
        if self._mask is None:
            self._mask = np.empty(self._num_words, np.int32)
            matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        return self._mask

    def _compiled(self) -> "LLMatcher":
        try:
            return self._form.result(max(0.0, self._due_s - time.perf_counter()))
        except TimeoutError:
            raise InvalidConstraint(
                f"the form asked for takes longer than {COMPILE_S:g} s to compile; make it simpler"
            ) from None
        except InvalidConstraint as error:  # it is kept with the form; this one goes its own way
            raise InvalidConstraint(str(error)) from None
