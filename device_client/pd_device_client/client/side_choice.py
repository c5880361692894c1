"""Which sides take part in an answer, and why one does not."""

from dataclasses import dataclass
from enum import Enum, auto

from pd_core.errors import (
    FingerprintMismatch,
    InvalidRequest,
    PdError,
    PromptTooLong,
    TokenLimitTooHigh,
    TokenOutOfVocabulary,
)
from pd_core.generation import ModelCard
from pd_device_client.client.cloud_watch import CloudWatch
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.cloud_reason import CloudReason
from pd_device_client.planning.context_room import cloud_problem, device_problem

__all__ = ["SideChoice", "check_tokens", "choose_sides", "longest_context_tokens", "room_tokens"]


@dataclass(frozen=True, slots=True)
class SideChoice:
    """The sides of an answer.

    Attributes:
        cloud: whether the cloud takes part.
        device: whether the local engine takes part.
        notes: why a side cannot take part, in words for the user.
        cloud_reason: why the cloud does or does not.
    """

    cloud: bool
    device: bool
    notes: tuple[str, ...]
    cloud_reason: CloudReason = CloudReason.PLANNED


class _Out(Enum):
    """Why a side does not take part."""

    NOT_THERE = auto()
    NOT_WANTED = auto()
    NO_CARD = auto()
    LEFT_ALONE = auto()
    MISMATCH = auto()
    NO_ROOM = auto()


_REASONS = {
    _Out.NOT_THERE: CloudReason.NO_CLOUD,
    _Out.NOT_WANTED: CloudReason.MODE,
    _Out.NO_CARD: CloudReason.UNREACHABLE,
    _Out.LEFT_ALONE: CloudReason.BREAKER,
    _Out.MISMATCH: CloudReason.MISMATCH,
    _Out.NO_ROOM: CloudReason.NO_ROOM,
}


def choose_sides(ask: Ask, cloud: CloudWatch, engine: ModelCard | None) -> SideChoice:
    """Choose the sides that can take a request; if there are none at all, the planner refuses it.

    Args:
        ask: the request.
        cloud: the watched cloud.
        engine: the local engine's card, or None.

    Raises:
        InvalidRequest: device-only without a local engine.
        FingerprintMismatch: cloud-only, and the cloud's tokenizer or chat template differs.
        PdError: no existing side can take it; the error says why.
    """
    cloud_only, mismatch = ask.mode is Mode.CLOUD_ONLY, cloud.handshake.mismatch
    no_cloud_room = no_device_room = None
    if cloud.info is not None:
        no_cloud_room = cloud_problem(cloud.info, ask, engine)
    if engine is not None:
        no_device_room = device_problem(engine, ask)
    differ = engine is not None and mismatch != ""
    cloud_out = _first(
        (_Out.NOT_THERE, cloud.link is None),
        (_Out.NOT_WANTED, ask.mode is Mode.DEVICE_ONLY),
        (_Out.NO_CARD, cloud.info is None),
        (_Out.LEFT_ALONE, engine is not None and cloud.left_alone),
        (_Out.MISMATCH, differ and not cloud_only),
        (_Out.NO_ROOM, no_cloud_room is not None),
    )
    device_out = _first(
        (_Out.NOT_THERE, engine is None),
        (_Out.MISMATCH, differ and cloud_only and cloud_out in (None, _Out.NO_ROOM)),
        (_Out.NO_ROOM, no_device_room is not None),
    )
    if ask.mode is Mode.DEVICE_ONLY and device_out is _Out.NOT_THERE:
        raise InvalidRequest("device-only needs a local engine, and there is none")
    if device_out is _Out.MISMATCH and cloud.handshake.other_text:
        raise FingerprintMismatch(mismatch)
    problems = [no_cloud_room] if cloud_out is _Out.NO_ROOM else []
    problems += [no_device_room] if device_out is _Out.NO_ROOM else []
    reason = [*problems, cloud.error][0]
    if cloud_out and device_out and reason is not None:
        raise reason
    words = {
        _Out.NO_CARD: f"the device goes on alone: {cloud.error or 'start() was not called'}",
        _Out.LEFT_ALONE: "the device goes on alone: the cloud failed several times in a row",
        _Out.MISMATCH: mismatch,
    }
    notes = [words[out] for out in (cloud_out, device_out) if out in words]
    return SideChoice(
        cloud_out is None,
        device_out is None,
        (*notes, *(str(problem) for problem in problems)),
        CloudReason.PLANNED if cloud_out is None else _reason(cloud_out, no_cloud_room),
    )


def _reason(out: _Out, problem: PdError | None) -> CloudReason:
    if out is _Out.NO_ROOM and not isinstance(problem, PromptTooLong | TokenLimitTooHigh):
        return CloudReason.UNABLE
    return _REASONS[out]


def _first(*cases: tuple[_Out, bool]) -> _Out | None:
    """Return the first case that is true; None: the side takes part."""
    return next((out for out, holds in cases if holds), None)


def check_tokens(ask: Ask, cloud: CloudWatch, engine: ModelCard | None) -> None:
    """Check that the vocabulary of every present side has the prompt's token ids.

    Raises:
        TokenOutOfVocabulary: a vocabulary lacks one.
    """
    sizes = [cloud.info.model.vocab_size] if cloud.info is not None else []
    if engine is not None:
        sizes.append(engine.vocab_size)
    worst, least = max(ask.prompt_token_ids), min(ask.prompt_token_ids)
    if least < 0 or (sizes and worst >= min(sizes)):
        wrong = least if least < 0 else worst
        raise TokenOutOfVocabulary(
            f"token id {wrong} is not in the vocabulary of {min(sizes, default=0)} ids"
        )


def longest_context_tokens(cloud: CloudWatch, engine: ModelCard | None) -> int | None:
    """The longest context of any present side; None if no side's is known."""
    contexts = [] if cloud.info is None else [cloud.info.model.max_context_tokens]
    if engine is not None:
        contexts.append(engine.max_context_tokens)
    return max(contexts, default=None)


def room_tokens(num_prompt: int, mode: Mode, cloud: CloudWatch, engine: ModelCard | None) -> int:
    """The highest token limit that every side of the mode accepts for such a prompt.

    A side without room for the prompt itself does not count; 0 or less when no side has room.
    """
    rooms = []
    if engine is not None and mode is not Mode.CLOUD_ONLY:
        rooms.append(engine.max_context_tokens - num_prompt)
    if cloud.info is not None and mode is not Mode.DEVICE_ONLY:
        context, output = cloud.info.model.max_context_tokens, cloud.info.limits.max_output_tokens
        rooms.append(min(context - num_prompt, output))
    return min((room for room in rooms if room > 0), default=max(rooms, default=0))
