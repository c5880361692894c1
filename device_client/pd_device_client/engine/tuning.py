"""How an engine runs best on this machine: threads and chunk, from passes that were timed."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from pd_core.files.kept_results import keep, kept
from pd_core.models.thread_trial import PassTimes, fewest_near_best

__all__ = ["Tuning", "chunk_for", "keep_tuning", "kept_tuning"]

_PASS_S = 0.1  # a cancel waits for one pass
_LEAST, _MOST, _STEP = 16, 512, 16
_KIND = "tuning"


@dataclass(frozen=True, slots=True)
class Tuning:
    """The times of passes with each number of threads that the model may run with.

    Attributes:
        times: with rising numbers of threads; at least one.
        calm: no other program wanted the cores meanwhile.
    """

    times: tuple[PassTimes, ...]
    calm: bool = True

    @property
    def most_threads(self) -> int:
        """The highest number that was tried."""
        return self.times[-1].threads

    def prefill(self, most: int) -> PassTimes:
        """Return the threads for a pass of several tokens, at most so many (but at least one)."""
        return fewest_near_best(self._allowed(most), lambda t: t.token_s)

    def decode(self, most: int) -> PassTimes:
        """Return the threads for a pass of one token."""
        return fewest_near_best(self._allowed(most), lambda t: t.step_s)

    def slowdown(self, most: int) -> tuple[float, float]:
        """Return how many times as long prefill and decode take with so few threads."""
        token_s, step_s = self.prefill(most).token_s, self.decode(most).step_s
        top = self.most_threads
        return token_s / self.prefill(top).token_s, step_s / self.decode(top).step_s

    @property
    def threads(self) -> tuple[int, int]:
        """The numbers for prefill and decode on a machine that does nothing else."""
        return self.prefill(self.most_threads).threads, self.decode(self.most_threads).threads

    @property
    def chunk_tokens(self) -> int:
        """Tokens of a pass of about a tenth of a second, with all threads."""
        return chunk_for(self.prefill(self.most_threads).token_s)

    def _allowed(self, most: int) -> Sequence[PassTimes]:
        return [t for t in self.times if t.threads <= most] or self.times[:1]


def chunk_for(token_s: float) -> int:
    """Return how many tokens a pass takes so that it lasts about a tenth of a second.

    Args:
        token_s: seconds per token.
    """
    tokens = int(_PASS_S / token_s) // _STEP * _STEP
    return max(_LEAST, min(_MOST, tokens))


def kept_tuning(key: object) -> Tuning | None:
    """Return the tuning that an earlier process kept under `key`, or None."""
    found = kept(_KIND, key)
    calm, rows = found if isinstance(found, list) and len(found) == 2 else (None, None)
    if not isinstance(calm, bool) or not isinstance(rows, list):
        return None
    if not rows or not all(map(_is_row, rows)):
        return None
    return Tuning(tuple(PassTimes(*row) for row in rows), calm)


def keep_tuning(key: object, tuning: Tuning) -> None:
    """Keep a tuning for the next start.

    Args:
        key: everything the speeds depend on, as JSON values.
        tuning: what was measured.
    """
    keep(_KIND, key, [tuning.calm, [list(astuple(t)) for t in tuning.times]])


def _is_row(row: object) -> bool:
    if not isinstance(row, list) or len(row) != 3 or type(row[0]) is not int or row[0] < 1:
        return False
    return all(isinstance(s, float) and 0 < s < math.inf for s in row[1:])
