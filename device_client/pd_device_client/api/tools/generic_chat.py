"""A chat with functions for a template that knows none: they are told of in plain messages.

The system's text lists the functions and asks for JSON, calls are the assistant's text in that
form, and results come as the user's.
"""

import json
from collections.abc import Sequence

from pd_device_client.api.tools.functions import Offer
from pd_device_client.api.tools.turns import Call, Turn

__all__ = ["generic_messages"]

_HEAD = "You can call functions. Each line describes one, in JSON:"
_HOW = 'To call one, answer only with JSON: {"name": FUNCTION, "arguments": {...}}'
_SEVERAL = "To call several at once, answer with a JSON array of such objects."
_FREE = "If no function helps, answer in plain words."
_MUST = "Answer with a JSON array of calls."
_NAMED = "Answer only with the arguments of a call of {name}, as a JSON object."


def generic_messages(
    turns: Sequence[Turn], offer: Offer | None, *, knows_system: bool = True
) -> list[dict[str, str]]:
    """Return messages of plain text.

    Args:
        turns: the chat.
        offer: the functions; None: none are offered, though earlier turns may have calls.
        knows_system: the template takes a system's message; else the first user's message begins
            with its text.
    """
    messages = list[dict[str, str]]()
    for turn in turns:
        role, text = _plain(turn)
        # Results in a row are one message, because templates may want turns to alternate.
        if turn.role == "tool" and messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{text}"
        else:
            messages.append({"role": role, "content": text})
    if offer is not None:
        _tell(messages, _instructions(offer))
    if not knows_system:
        _without_system(messages)
    return messages


def _plain(turn: Turn) -> tuple[str, str]:
    if turn.answers is not None:
        return "user", f"Result of {turn.answers.name}:\n{turn.text or ''}"
    texts = [turn.text] if turn.text else []
    if len(turn.calls) == 1:
        texts.append(_written(turn.calls[0]))
    elif turn.calls:
        texts.append("[" + ", ".join(map(_written, turn.calls)) + "]")
    return turn.role, "\n".join(texts)


def _written(call: Call) -> str:
    return f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments or "{}"}}}'


def _instructions(offer: Offer) -> str:
    lines = [_HEAD]
    for function in offer.functions:
        told = {"name": function.name}
        if function.description:
            told["description"] = function.description
        lines.append(json.dumps({**told, "parameters": function.arguments}, ensure_ascii=False))
    if offer.named is not None:
        lines.append(_NAMED.format(name=offer.named.name))
    elif offer.required:
        lines += [_HOW, _MUST]
    else:
        lines += [_HOW, *([_SEVERAL] if offer.parallel else []), _FREE]
    return "\n".join(lines)


def _tell(messages: list[dict[str, str]], instructions: str) -> None:
    """Add to the system's text, or begin with one."""
    if messages and messages[0]["role"] == "system":
        before = messages[0]["content"]
        messages[0]["content"] = f"{before}\n\n{instructions}" if before else instructions
    else:
        messages.insert(0, {"role": "system", "content": instructions})


def _without_system(messages: list[dict[str, str]]) -> None:
    if not messages or messages[0]["role"] != "system":
        return
    system = messages.pop(0)["content"]
    if messages and messages[0]["role"] == "user":
        messages[0]["content"] = f"{system}\n\n{messages[0]['content']}"
    else:
        messages.insert(0, {"role": "user", "content": system})
