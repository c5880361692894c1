"""Each bad Start has its own typed refusal that names the bound."""

from dataclasses import replace

import pytest

from pd_core.constraint import json_object_constraint
from pd_core.errors import (
    FingerprintMismatch,
    InvalidConstraint,
    InvalidRequest,
    PdError,
    PromptTooLong,
    TokenLimitTooHigh,
    TokenOutOfVocabulary,
)
from pd_core.generation import Extend, Fingerprints, Limits, Load, ModelCard, ServerInfo, Start
from pd_core.sampling_params import SamplingParams
from pd_server.gate.validation import RequestValidator

_OURS = Fingerprints("tok", "tmpl", "w", "num")
_GOOD = Start("r1", (1, 2, 3), 20)
_CARD = ServerInfo("1", ModelCard("m", "torch", _OURS, 16, (0,), 100), Limits(50, 2, 2), Load())
_VALIDATOR = RequestValidator(_CARD)


def _start(**changes: object) -> Start:
    return replace(_GOOD, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "start",
    [
        _GOOD,
        _start(token_limit=50),
        _start(prompt_token_ids=(1,) * 99, token_limit=1),
        _start(prompt_token_ids=(1,) * 60, committed_token_ids=(2,) * 20, token_limit=40),
        # A continuation whose earlier answer stands in the prompt: positions go on counting.
        _start(prompt_token_ids=(1,) * 90, committed_first_position=30, token_limit=40),
        _start(keep_ratio=0.5),
        _start(fingerprints=_OURS),
        _start(fingerprints=Fingerprints(numerics_id="another")),
        _start(request_id="!" * 128),
    ],
)
def test_good_starts_pass(start: Start) -> None:
    _VALIDATOR.check_start(start)


@pytest.mark.parametrize(
    ("start", "error", "words"),
    [
        (_start(request_id=""), InvalidRequest, "request_id"),
        (_start(request_id="a b"), InvalidRequest, "request_id"),
        (_start(request_id="a\nb"), InvalidRequest, "request_id"),
        (_start(request_id="x\n"), InvalidRequest, "request_id"),
        (_start(request_id="x" * 129), InvalidRequest, "request_id"),
        (_start(prompt_token_ids=()), InvalidRequest, "empty"),
        (_start(token_limit=0), InvalidRequest, "token_limit"),
        (_start(keep_ratio=0.0), InvalidRequest, "keep_ratio"),
        (_start(keep_ratio=1.5), InvalidRequest, "keep_ratio"),
        (_start(keep_ratio=float("nan")), InvalidRequest, "keep_ratio"),
        (_start(cache_salt="s" * 257), InvalidRequest, "cache_salt"),
        (_start(sampling=SamplingParams(logprobs=0)), InvalidRequest, "gives none"),
        (_start(sampling=SamplingParams(logit_bias=((16, 1.0),))), TokenOutOfVocabulary, "logit_"),
        (_start(sampling=SamplingParams(late_token_ids=(16,))), TokenOutOfVocabulary, "late_"),
        (_start(stop_token_ids=(1, 10**6)), TokenOutOfVocabulary, r"stop_token_ids\[1\]"),
        (
            _start(fingerprints=Fingerprints("other")),
            FingerprintMismatch,
            "tokenizers of .* differ:",
        ),
        (
            _start(fingerprints=Fingerprints("", "other")),
            FingerprintMismatch,
            "templates of .* differ:",
        ),
        (
            _start(fingerprints=Fingerprints("", "", "other")),
            FingerprintMismatch,
            "weights of .* differ:",
        ),
        (_start(prompt_token_ids=(1, 16)), TokenOutOfVocabulary, r"prompt_token_ids\[1\] is 16"),
        (_start(committed_token_ids=(99,)), TokenOutOfVocabulary, r"committed_token_ids\[0\]"),
        (_start(prompt_token_ids=(1,) * 100), PromptTooLong, "context of 100"),
        (
            _start(prompt_token_ids=(1,) * 60, committed_token_ids=(1,) * 45),
            PromptTooLong,
            "shorten the prompt by 6",
        ),
        (_start(token_limit=51), TokenLimitTooHigh, "ask for at most 50, .*--max-output-tokens"),
        (
            _start(prompt_token_ids=(1,) * 90, token_limit=20),
            TokenLimitTooHigh,
            "ask for at most 10 tokens, or shorten the prompt by 10",
        ),
    ],
)
def test_bad_starts_are_refused_by_name(start: Start, error: type[PdError], words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        _VALIDATOR.check_start(start)
    assert type(raised.value) is error


def test_a_form_needs_a_server_that_compiles_it_and_all_of_the_answer() -> None:
    formed = _start(sampling=SamplingParams(constraint=json_object_constraint()))
    with pytest.raises(InvalidConstraint, match=r"this server \(torch\) holds no answer to a form"):
        _VALIDATOR.check_start(formed)
    able = replace(_CARD, model=replace(_CARD.model, grammar_library="llguidance-1.9.1/1"))
    RequestValidator(able).check_start(formed)
    with pytest.raises(InvalidConstraint, match="needs all of its tokens"):
        RequestValidator(able).check_start(replace(formed, committed_first_position=4))


def test_extend_has_the_bounds_of_start() -> None:
    _VALIDATOR.check_extend(_GOOD, Extend(50))
    with pytest.raises(TokenLimitTooHigh, match="at most 50"):
        _VALIDATOR.check_extend(_GOOD, Extend(51))


def test_unknown_fingerprints_of_the_server_refuse_nobody() -> None:
    unknown = replace(_CARD, model=replace(_CARD.model, fingerprints=Fingerprints()))
    RequestValidator(unknown).check_start(_start(fingerprints=_OURS))
