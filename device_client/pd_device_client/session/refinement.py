"""The refined prompt of one request: what is asked of the cloud, and what becomes of its answer."""

import logging
import math
from collections.abc import Callable

from pd_core.errors import ProtocolError
from pd_core.generation import RefinedPrompt
from pd_core.refinement import Ranges, check_kept, num_positions

__all__ = ["Refinement"]

logger = logging.getLogger(__name__)


class Refinement:
    """Asks for one refined prompt, and passes it on if it can be used.

    Args:
        keep_ratio: share of the prompt to keep; 1: nothing is asked for.
        protected_ranges: positions to keep in any case.
        num_tokens: of the prompt.
        use: called with the ranges of one that can be used.

    Attributes:
        keep_ratio: what to ask for now; 1 once a refined prompt has come.
        protected_ranges: as given; none when nothing is asked for.
        problem: why one was not used, in words for the user; None: there was no problem.
    """

    def __init__(
        self,
        keep_ratio: float,
        protected_ranges: Ranges,
        num_tokens: int,
        use: Callable[[Ranges], None],
    ) -> None:
        self.keep_ratio = keep_ratio
        self.protected_ranges = protected_ranges if keep_ratio < 1.0 else ()
        self.problem: str | None = None
        self._num_tokens = num_tokens
        self._use = use

    def take(self, refined: RefinedPrompt) -> None:
        """Use a refined prompt; one that was not asked for, or is wrong, changes nothing."""
        asked, protected = self.keep_ratio, self.protected_ranges
        if asked >= 1.0:
            logger.debug("a refined prompt was not asked for and is ignored")
            return
        self.keep_ratio, self.protected_ranges = 1.0, ()
        try:
            check_kept(refined.kept_ranges, self._num_tokens, protected)
            kept = num_positions(refined.kept_ranges)
            if kept < math.ceil(asked * self._num_tokens):
                raise ProtocolError(
                    f"the refined prompt is of no use: it keeps {kept} of {self._num_tokens} "
                    f"tokens; a share of {asked:g} was asked for"
                )
        except ProtocolError as error:
            self.problem = f"{error}; the full prompt is used"
            logger.warning("%s", self.problem)
            return
        self._use(refined.kept_ranges)
