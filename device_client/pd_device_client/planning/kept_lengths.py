"""The lengths of past answers, kept for the next start: counts of tokens, and no text."""

from pd_core.files.kept_results import keep, kept
from pd_device_client.planning.answer_lengths import AnswerLengths

__all__ = ["keep_lengths", "kept_lengths"]

_KIND = "answer-lengths"
_KEY = "prompt and answer tokens"


def kept_lengths() -> AnswerLengths:
    """Return what an earlier process kept; without it, or if it is damaged, nothing is known."""
    found = kept(_KIND, _KEY)
    return AnswerLengths(found if isinstance(found, list) else ())


def keep_lengths(lengths: AnswerLengths) -> None:
    """Keep the lengths for the next start, if there are any."""
    if past := lengths.past:
        keep(_KIND, _KEY, past)
