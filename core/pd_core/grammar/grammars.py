"""The forms of answers that one model's vocabulary is held to, each compiled once."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from pd_core.constraint import Constraint
from pd_core.errors import InvalidConstraint
from pd_core.grammar.compiled import compiled
from pd_core.grammar.library import library, library_id
from pd_core.grammar.matcher import Matcher
from pd_core.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

__all__ = ["MOST_FORMS", "Grammars"]

MOST_FORMS = 32
"""Forms that are kept compiled; the one unused for longest goes first."""


class Grammars:
    """Compiles forms on a thread of its own, beside whatever else a request waits for.

    Args:
        tokenizer: the model's.
        num_token_ids: V; ids are below this.
        eos_token_ids: that end an answer; without any, no answer of a given form would end.
    """

    def __init__(
        self, tokenizer: Tokenizer, num_token_ids: int, eos_token_ids: Sequence[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._num_token_ids = num_token_ids
        self._eos_token_ids = tuple(eos_token_ids)
        self._vocabulary: LLTokenizer | None = None
        self._reading = threading.Lock()
        self._forms = OrderedDict[Constraint, "Future[LLMatcher]"]()
        self._changing = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="grammar")

    @property
    def library(self) -> str:
        """What compiles here, see `library_id`; "" where nothing can."""
        return library_id() if self._eos_token_ids else ""

    def prepare(self) -> None:
        """Read the vocabulary now; else the first form waits for it, and all threads with it.

        A tokenizer that cannot be used is found out with the first form.
        """
        if self.library:
            self._worker.submit(self._read).exception()

    def matcher(self, constraint: Constraint) -> Matcher:
        """Return the place of a new answer in its form; compiling begins at once, if it must."""
        return Matcher(
            self._form(constraint),
            partial(self._form, constraint),
            self._num_token_ids,
            self._eos_token_ids,
        )

    def _form(
        self, constraint: Constraint, instead_of: "Future[LLMatcher] | None" = None
    ) -> "Future[LLMatcher]":
        """Return a compiled form, or what it will be; never the one that it shall replace."""
        with self._changing:
            form = self._forms.pop(constraint, None)
            if form is None or form is instead_of:
                form = self._worker.submit(self._compiled, constraint)
            self._forms[constraint] = form
            while len(self._forms) > MOST_FORMS:
                self._forms.popitem(last=False)
        return form

    def _compiled(self, constraint: Constraint) -> "LLMatcher":
        return compiled(constraint, self._read())

    def _read(self) -> "LLTokenizer":
        """Return the vocabulary as the library wants it.

        Raises:
            InvalidConstraint: it is of a kind that the library does not know.
        """
        with self._reading:
            if self._vocabulary is None:
                if not self._eos_token_ids:
                    raise InvalidConstraint(
                        "this model has no end-of-sequence token, so an answer of a given form "
                        "would not end; use another model"
                    )
                try:
                    self._vocabulary = library().LLTokenizer(
                        self._tokenizer.library_json(),
                        n_vocab=self._num_token_ids,
                        eos_token=list(self._eos_token_ids),
                    )
                except ValueError as error:
                    raise InvalidConstraint(
                        "answers cannot be held to a form with this model's tokenizer "
                        f"({str(error)[:200]}); use another model"
                    ) from error
            return self._vocabulary
