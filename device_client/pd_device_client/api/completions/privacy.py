"""Judges whether the words of a request may leave this device."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial

from pd_core.constraint import Constraint, ConstraintKind
from pd_device_client.api.completions.message import Message
from pd_device_client.api.completions.parameters import (
    ChatParameters,
    CompletionParameters,
)
from pd_device_client.contract.privacy import FREE, Privacy
from pd_device_client.device.device import Device
from pd_device_client.privacy.judge import Words

__all__ = ["judged"]

_APART = "\n\n"
# A character by its number in an expression; the texts of a choice are all written so.
_ESCAPED = re.compile(
    r"\\+(?:[xuU]\{([0-9a-fA-F]{1,8})\}|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))"
)
_TOLD_ANEW = ("system", "developer")  # often with the time: it is no part of what was said


async def judged(
    device: Device, asked: ChatParameters | CompletionParameters, prompts: Sequence[tuple[int, ...]]
) -> Privacy:
    """Return the judgement on a request; if one of its prompts stays here, all of it does."""
    extension = asked.extension
    if not extension.stays_here and device.judge.has_nothing_to_test:
        return FREE
    num_tokens = sum(len(prompt) for prompt in prompts)
    said, read = await device.encoded(num_tokens, partial(_texts, device, asked, prompts))
    return await device.judge.judge(
        Words(
            said,
            read,
            max(len(prompt) for prompt in prompts),
            local_only=extension.stays_here,
            label=extension.label,
            conversation=extension.conversation,
        )
    )


def _texts(
    device: Device, asked: ChatParameters | CompletionParameters, prompts: Sequence[tuple[int, ...]]
) -> tuple[list[str], list[str]]:
    """Return what a request says, and what the model would read of it."""
    tokenizer = device.loaded.tokenizer
    known = [[id_ for id_ in prompt if id_ < device.loaded.num_token_ids] for prompt in prompts]
    read = [tokenizer.decode(ids, skip_special_tokens=False) for ids in known]
    read += _form(asked.constraint)
    if isinstance(asked, ChatParameters):
        turns = [each for each in asked.messages if each.role not in _TOLD_ANEW]
        return [_said(turns or asked.messages)], [*read, _said(asked.messages)]
    given = asked.prompt if isinstance(asked.prompt, list) else [asked.prompt]
    said = [text for text in given if isinstance(text, str)]
    return said or read[: len(prompts)], read


def _form(constraint: Constraint | None) -> list[str]:
    """Return the words of an answer's form, which the cloud is told too."""
    if constraint is None:
        return []
    words = [constraint.source]
    if constraint.kind is ConstraintKind.JSON_SCHEMA:
        words.append(json.dumps(json.loads(constraint.source), ensure_ascii=False))
    return [*words, *(_ESCAPED.sub(_character, each) for each in words)]


def _character(escaped: re.Match[str]) -> str:
    code = int(next(filter(None, escaped.groups())), 16)
    return chr(code) if code <= sys.maxunicode else escaped[0]


def _said(messages: Sequence[Message]) -> str:
    return "".join(_APART.join([*_strings(each.model_dump()), ""]) for each in messages)


def _strings(value: object) -> Iterator[str]:
    """Yield all texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
