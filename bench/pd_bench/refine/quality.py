"""What leaving out parts of prompts costs, by a model's own judgement.

A prompt's answer is what the model makes of the whole prompt. A refined prompt is judged by how far
the model, having read it, expects that answer, and how well it expects the text that really
follows; and by whether it still finds a fact that stands somewhere in the prompt.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from pd_bench.refine.reading import Judged, answer, judge, read
from pd_bench.refine.selection import METHODS, scores_of
from pd_bench.refine.settings import RefineSettings
from pd_bench.refine.texts import Needle, Passage, document, needles, passages
from pd_core.checkpoints.loading import LoadedModel
from pd_core.refinement import chosen_ranges, num_positions

__all__ = ["Kept", "Quality", "measure_quality"]

_FOUND_WITHIN = 16  # tokens of an answer

Tell = Callable[[str], None]


@dataclass(slots=True)
class Kept:
    """What one way of choosing did at one keep ratio.

    Attributes:
        method: see METHODS; "full" for the whole prompt.
        keep_ratio: what was asked for.
        kept: shares of the prompts that were kept.
        agreement: of each passage, the share of the full prompt's answer that stays the likeliest.
        answer_loss: nats per token of that answer.
        text_loss: nats per token of the text that follows the passage.
        found: of each needle, whether the answer has it.
    """

    method: str
    keep_ratio: float
    kept: list[float] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    answer_loss: list[float] = field(default_factory=list)
    text_loss: list[float] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)

    def add(self, of_answer: Judged, of_text: Judged) -> None:
        """Add a passage."""
        self.agreement.append(of_answer.agreement)
        self.answer_loss.append(of_answer.loss)
        self.text_loss.append(of_text.loss)


@dataclass(frozen=True, slots=True)
class Quality:
    """Attributes:
    rows: one for the full prompt, and one for each method and ratio.
    """

    rows: list[Kept]

    def figures(self) -> list[dict[str, float | str | None]]:
        """Return the means of each row; None where nothing was measured."""
        return [
            {
                "method": row.method,
                "keep_ratio": row.keep_ratio,
                "kept": _mean(row.kept),
                "agreement": _mean(row.agreement),
                "answer_perplexity": _perplexity(row.answer_loss),
                "text_perplexity": _perplexity(row.text_loss),
                "needles_found": _mean([float(found) for found in row.found]),
            }
            for row in self.rows
        ]


def measure_quality(loaded: LoadedModel, settings: RefineSettings, tell: Tell) -> Quality:
    """Judge every method at every ratio on passages and needles.

    Raises:
        ConfigError: the text or the model's context is too short.
    """
    text = document(settings.text)
    length, more = settings.prompt_tokens, settings.answer_tokens
    some = passages(loaded, text, settings.passages, length, more)
    hidden = needles(loaded, text, settings.needles, length, settings.seed)
    rows = [Kept("full", 1.0)]
    rows += [Kept(method, ratio) for method in METHODS for ratio in settings.ratios]
    for index, passage in enumerate(some):
        tell(f"passage {index + 1} of {len(some)}")
        _judge_passage(loaded, passage, rows, settings.seed + index)
    for index, needle in enumerate(hidden):
        tell(f"needle {index + 1} of {len(hidden)}")
        _look_for(loaded, needle, rows, settings.seed + index)
    return Quality(rows)


def _judge_passage(loaded: LoadedModel, passage: Passage, rows: Sequence[Kept], seed: int) -> None:
    model, prompt, following = loaded.model, passage.prompt, passage.following
    full = read(model, prompt, ((0, len(prompt)),), len(following))
    expected = answer(model, full, len(following))
    scores = {m: scores_of(m, model, prompt, expected, full, seed) for m in METHODS}
    for row in rows:
        reading = full
        if row.method != "full":
            kept = chosen_ranges(scores[row.method], row.keep_ratio)
            row.kept.append(num_positions(kept) / len(prompt))
            reading = read(model, prompt, kept, len(following))
        row.add(judge(model, reading, expected), judge(model, reading, following))


def _look_for(loaded: LoadedModel, needle: Needle, rows: Sequence[Kept], seed: int) -> None:
    model, prompt = loaded.model, needle.prompt
    full = read(model, prompt, ((0, len(prompt)),), _FOUND_WITHIN)
    expected = answer(model, full, _FOUND_WITHIN)
    scores = {m: scores_of(m, model, prompt, expected, full, seed) for m in METHODS}
    for row in rows:
        made = expected
        if row.method != "full":
            kept = chosen_ranges(scores[row.method], row.keep_ratio, needle.protected)
            row.kept.append(num_positions(kept) / len(prompt))
            made = answer(model, read(model, prompt, kept, _FOUND_WITHIN), _FOUND_WITHIN)
        row.found.append(needle.answer in loaded.tokenizer.decode(made))


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _perplexity(losses: Sequence[float]) -> float | None:
    return math.exp(fmean(losses)) if losses else None
