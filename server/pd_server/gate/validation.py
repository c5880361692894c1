"""Checks whether the server can run a request. Every refusal names the bound and the remedy."""

import re

from pd_core.errors import (
    FingerprintMismatch,
    InvalidConstraint,
    InvalidRequest,
    PromptTooLong,
    TokenLimitTooHigh,
    TokenOutOfVocabulary,
)
from pd_core.generation import Extend, Fingerprints, ServerInfo, Start
from pd_core.refinement import MOST_PROTECTED, ordered

__all__ = ["RequestValidator"]

# Printable ASCII without spaces: the id appears in log lines.
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_MAX_SALT_LENGTH = 256

# numerics_id is not here: when it differs, answers may differ and both sides say so, but no request
# is refused (DESIGN 2).
_CHECKED_FINGERPRINTS = (
    ("tokenizer", "tokenizers"),
    ("chat_template", "chat templates"),
    ("weights", "weights"),
)


class RequestValidator:
    """Checks one request at a time against what the server runs and accepts.

    Args:
        card: what the server says about itself.
    """

    def __init__(self, card: ServerInfo) -> None:
        self._model = card.model
        self._limits = card.limits

    def check_start(self, start: Start) -> None:
        """Refuse a Start that the server cannot run.

        Raises:
            InvalidRequest: request id, empty prompt, ranges of single fields.
            FingerprintMismatch: different tokenizer, chat template or weights.
            TokenOutOfVocabulary: a token id outside the vocabulary.
            PromptTooLong: prompt and committed tokens leave no room in the context.
            TokenLimitTooHigh: more tokens than the server or the context allows.
            InvalidConstraint: a form of the answer, and this server can hold no answer to one.
        """
        self._check_fields(start)
        self._check_constraint(start)
        self._check_fingerprints(start.fingerprints)
        self._check_vocabulary("prompt_token_ids", start.prompt_token_ids)
        self._check_vocabulary("committed_token_ids", start.committed_token_ids)
        self._check_vocabulary("stop_token_ids", start.stop_token_ids)
        self._check_vocabulary("late_token_ids", start.sampling.late_token_ids)
        biased = tuple(token_id for token_id, _ in start.sampling.logit_bias)
        self._check_vocabulary("logit_bias", biased)
        self._check_lengths(start)

    def check_extend(self, start: Start, extend: Extend) -> None:
        """Refuse an Extend over the limits of its request.

        Raises:
            TokenLimitTooHigh: more tokens than the server or the context allows.
        """
        self._check_token_limit(start, extend.token_limit)

    def _check_fields(self, start: Start) -> None:
        if not _REQUEST_ID.fullmatch(start.request_id):
            raise InvalidRequest(
                "request_id must be 1 to 128 printable ASCII characters without spaces"
            )
        if not start.prompt_token_ids:
            raise InvalidRequest("the prompt is empty; it needs at least one token")
        if start.token_limit < 1:
            raise InvalidRequest("token_limit is 0; it must be 1 or more")
        if start.sampling.logprobs is not None and not self._model.logprobs:
            raise InvalidRequest(
                f"logprobs are asked for, and this server's engine ({self._model.engine}) gives "
                "none; leave them out"
            )
        if not 0.0 < start.keep_ratio <= 1.0:
            raise InvalidRequest(f"keep_ratio is {start.keep_ratio}; it must lie in (0, 1]")
        if len(start.protected_ranges) > MOST_PROTECTED:
            raise InvalidRequest(
                f"protected_ranges has {len(start.protected_ranges)} ranges; at most "
                f"{MOST_PROTECTED} are taken: join some"
            )
        wrong = ordered(start.protected_ranges, len(start.prompt_token_ids))
        if wrong is not None:
            raise InvalidRequest(f"protected_ranges cannot be used: {wrong}")
        if len(start.cache_salt) > _MAX_SALT_LENGTH:
            raise InvalidRequest(f"cache_salt has more than {_MAX_SALT_LENGTH} characters")

    def _check_constraint(self, start: Start) -> None:
        if start.sampling.constraint is None:
            return
        if not self._model.grammar_library:
            raise InvalidConstraint(
                f"this server ({self._model.engine}) holds no answer to a form; leave the form "
                "out, or use a server that can"
            )
        known = len(start.prompt_token_ids) + len(start.committed_token_ids)
        if start.first_position > known:
            raise InvalidConstraint(
                f"the answer goes on at position {start.first_position}, and only {known} tokens "
                "came: an answer of a given form needs all of its tokens"
            )

    def _check_fingerprints(self, theirs: Fingerprints) -> None:
        for name, words in _CHECKED_FINGERPRINTS:
            mine, other = getattr(self._model.fingerprints, name), getattr(theirs, name)
            if mine and other and mine != other:
                raise FingerprintMismatch(
                    f"the {words} of server and client differ: the server's fingerprint begins "
                    f"{mine[:12]}, the client's {other[:12]!a}; use the same model on both sides"
                )

    def _check_vocabulary(self, name: str, token_ids: tuple[int, ...]) -> None:
        size = self._model.vocab_size
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < size:
            index = next(i for i, token_id in enumerate(token_ids) if not 0 <= token_id < size)
            raise TokenOutOfVocabulary(
                f"{name}[{index}] is {token_ids[index]}; ids of this model lie below {size}: use "
                "its tokenizer"
            )

    def _check_lengths(self, start: Start) -> None:
        num_tokens = len(start.prompt_token_ids) + len(start.committed_token_ids)
        context = self._model.max_context_tokens
        if num_tokens >= context:
            raise PromptTooLong(
                f"prompt and committed tokens are {num_tokens}; with one token of answer they must "
                f"fit a context of {context}: shorten the prompt by {num_tokens + 1 - context}"
            )
        self._check_token_limit(start, start.token_limit)

    def _check_token_limit(self, start: Start, token_limit: int) -> None:
        context_room = (
            self._model.max_context_tokens
            - len(start.prompt_token_ids)
            + start.committed_first_position
        )
        output_limit = self._limits.max_output_tokens
        highest = min(output_limit, context_room)
        if token_limit <= highest:
            return
        if context_room < output_limit:
            raise TokenLimitTooHigh(
                f"token_limit is {token_limit}; beside this prompt the context of "
                f"{self._model.max_context_tokens} has room for {highest}: ask for at most "
                f"{highest} tokens, or shorten the prompt by {token_limit - highest}"
            )
        raise TokenLimitTooHigh(
            f"token_limit is {token_limit}; this server makes at most {highest} tokens a request: "
            f"ask for at most {highest}, or start the server with a higher --max-output-tokens"
        )
