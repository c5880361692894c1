"""What simulated devices know of answers' lengths before their only request."""

from pathlib import Path

from pd_bench.traces.reader import read_trace
from pd_device_client.planning.answer_lengths import AnswerLengths

__all__ = ["past_lengths"]


class _PastLengths(AnswerLengths):
    """The same for every device: none learns from the answers of another."""

    def __init__(self, past: list[tuple[int, int]]) -> None:
        super().__init__()
        for prompt_tokens, output_tokens in past:
            super().add(prompt_tokens, output_tokens)

    def add(self, prompt_tokens: int, num_tokens: int) -> None:
        """Learn nothing: every row is another device, and has no further request."""


def past_lengths(trace: Path | None) -> AnswerLengths:
    """Return what the answers of a trace teach; None: nothing.

    The trace must not hold the rows that are simulated: a row's own length is never known.

    Raises:
        TraceError: it cannot be read.
    """
    rows = () if trace is None else read_trace(trace)
    return _PastLengths([(row.prompt_tokens, row.output_tokens) for row in rows])
