"""Variables that a request gives to the chat template, such as whether the model thinks."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from pd_device_client.api.http.errors import Refusal

__all__ = ["ReasoningEffort", "template_values"]

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

_MAX_CHARACTERS = 16_384
_OURS = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "now", "strftime_now"}
)


def template_values(
    given: Mapping[str, Any] | None, effort: ReasoningEffort | None
) -> dict[str, Any]:
    """Return the variables; templates ignore those that they do not know.

    Args:
        given: `chat_template_kwargs`.
        effort: `reasoning_effort`; "none" also turns thoughts off where a template can.

    Raises:
        Refusal: a name is none, or is that of a variable which only this program sets; or they
            are too long.
    """
    name = "chat_template_kwargs"
    values = dict(given or {})
    for key in values:
        if key in _OURS or key.startswith("_") or not key.isidentifier():
            raise Refusal(f"{name} may not set {key[:80]!a}; leave it out", name)
    if given and len(json.dumps(given)) > _MAX_CHARACTERS:
        raise Refusal(f"{name} has more than {_MAX_CHARACTERS} characters; send less", name)
    if effort is not None:
        values.setdefault("reasoning_effort", effort)
        if effort == "none":
            values.setdefault("enable_thinking", False)
    return values
