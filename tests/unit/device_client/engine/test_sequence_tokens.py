"""What both local engines know of a sequence's tokens."""

import logging

import pytest
import torch

from pd_core.errors import EngineError, PromptTooLong
from pd_core.sampling_params import SamplingParams
from pd_device_client.engine.sequence_tokens import SequenceTokens

AGAINST_REPETITION = SamplingParams(presence_penalty=2.0)


def flat(*favoured: int) -> torch.Tensor:
    """Logits of eight tokens, of which the favoured ones are a little likelier, in this order."""
    logits = torch.zeros(1, 8)
    for place, token_id in enumerate(favoured):
        logits[0, token_id] = 1.0 - 0.1 * place
    return logits


def tokens(*kept: int, sampling: SamplingParams = AGAINST_REPETITION) -> SequenceTokens:
    return SequenceTokens(sampling, (7,), 10, kept)


def test_what_does_not_fit_the_context_is_refused() -> None:
    sequence = tokens(1, 2, 3)
    assert sequence.room_for(5) == 2
    assert sequence.room_for(7) == 0
    with pytest.raises(PromptTooLong, match="11 tokens do not fit the local model's context of 10"):
        sequence.room_for(8)


def test_the_answer_so_far_is_looked_back_at_and_the_prompt_is_not() -> None:
    sequence = tokens(1, 2)
    sequence.feed([3])
    sequence.num_tokens += 1
    assert sequence.sample(flat(3, 4), 0)[0] == 3, "it stands in the prompt only"
    sequence.feed([3])
    sequence.num_tokens += 1
    assert sequence.sample(flat(3, 4), 1)[0] == 4


def test_guesses_and_failed_passes_are_forgotten() -> None:
    sequence = tokens(1)
    sequence.feed([2])
    sequence.num_tokens += 1
    assert sequence.sample(flat(5), 0)[0] == 5
    sequence.ids.append(5)  # a guess that was right, and is not fed after all
    assert sequence.sample(flat(5, 6), 1)[0] == 6
    sequence.feed([4])
    sequence.num_tokens += 1
    assert sequence.ids == [1, 2, 4]
    assert sequence.sample(flat(5, 6), 1)[0] == 5, "5 does not stand in this answer"
    sequence.feed([5, 5])  # a pass that failed
    sequence.feed([6])
    assert sequence.ids == [1, 2, 4, 6]


def test_what_fails_in_a_pass_is_one_error_with_its_cause_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(EngineError, match="failed: ValueError; see"),
        tokens().computing(3),
    ):
        raise ValueError("the cause")
    assert "in a pass of 3 tokens" in caplog.text
    assert "the cause" in caplog.text
