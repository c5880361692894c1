"""How well answers' lengths are forecast from their prompts', half a trace after the other."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pd_bench.traces.row import TraceRow
from pd_core.errors import TraceError
from pd_device_client.planning.answer_lengths import AnswerLengths, pinball

__all__ = ["QUANTILES", "LengthScore", "forecast_scores"]

QUANTILES = (0.5, 0.9)
_NO_LIMIT = 1 << 62
_LEAST_ROWS = 20

_Forecast = Callable[[int, float], int]


@dataclass(frozen=True, slots=True)
class LengthScore:
    """The forecasts of one quantile in one half.

    Attributes:
        half: which half was forecast, and from what.
        quantile: the quantile.
        rows: forecasts made.
        coverage: the share of answers that were no longer than forecast: near the quantile if the
            forecast is honest.
        pinball_tokens: what the forecasts cost on average: less is better.
        pinball_of_one: the same of one quantile for all prompts.
    """

    half: str
    quantile: float
    rows: int
    coverage: float
    pinball_tokens: float
    pinball_of_one: float


def forecast_scores(rows: Iterable[TraceRow]) -> list[LengthScore]:
    """Return the scores of a trace's halves.

    In the first half every answer is forecast from those before it, and learned afterwards. The
    second is forecast from the first, and once more while it is learned, too. No answer is part of
    what it is forecast from.

    Raises:
        TraceError: there are too few rows.
    """
    pairs = [(row.prompt_tokens, row.output_tokens) for row in rows]
    if len(pairs) < _LEAST_ROWS:
        raise TraceError(
            f"the trace has {len(pairs)} rows; forecasts need {_LEAST_ROWS} to be compared"
        )
    middle = len(pairs) // 2
    lengths = AnswerLengths()
    first = _scores("first, as it is learned", pairs[:middle], lengths, learns=True)
    second = _scores("second, from the first", pairs[middle:], lengths, learns=False)
    updated = _scores("second, as it is learned", pairs[middle:], lengths, learns=True)
    return [*first, *second, *updated]


def _scores(
    half: str, pairs: list[tuple[int, int]], lengths: AnswerLengths, *, learns: bool
) -> list[LengthScore]:
    covered, cost, cost_of_one = ([0.0] * len(QUANTILES) for _ in range(3))
    rows = 0
    for prompt_tokens, output_tokens in pairs:
        if lengths.num_past:
            rows += 1
            for at, quantile in enumerate(QUANTILES):
                forecast = lengths.quantile(prompt_tokens, quantile, _NO_LIMIT)
                of_one = lengths.quantile_of_all(quantile)
                covered[at] += output_tokens <= forecast
                cost[at] += pinball(quantile, output_tokens, forecast)
                cost_of_one[at] += pinball(quantile, output_tokens, of_one)
        if learns:
            lengths.add(prompt_tokens, output_tokens)
    return [
        LengthScore(half, q, rows, covered[at] / rows, cost[at] / rows, cost_of_one[at] / rows)
        for at, q in enumerate(QUANTILES)
    ]
