"""Parts become content blocks, and the events rebuild exactly those blocks on the other side."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pd_device_client.api.anthropic.blocks import Blocks
from pd_device_client.api.tools.parts import (
    Part,
    ReasoningPart,
    TextPart,
    ToolCallArguments,
    ToolCallStart,
)

_TEXTS = st.text(min_size=1, max_size=5)
_CALLS = st.dictionaries(_TEXTS, st.integers() | _TEXTS, max_size=3)


@st.composite
def answers(draw: st.DrawFn) -> list[Part]:
    parts: list[Part] = []
    for number in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["text", "reasoning", "call"]))
        if kind == "call":
            parts.append(ToolCallStart(number, f"call_{number}", "add"))
            text = json.dumps(draw(_CALLS))
            cut = draw(st.integers(0, len(text)))
            parts += [ToolCallArguments(number, piece) for piece in (text[:cut], text[cut:])]
        else:
            make = TextPart if kind == "text" else ReasoningPart
            parts += [make(piece) for piece in draw(st.lists(_TEXTS, min_size=1, max_size=4))]
    return parts


def told(parts: list[Part]) -> tuple[Blocks, list[tuple[str, Any]]]:
    blocks, events = Blocks(), list[tuple[str, Any]]()
    for part in parts:
        events += blocks.push(part)
    events += blocks.close()
    return blocks, events


def rebuilt(events: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Do what a client does: put the blocks together from their starts and deltas."""
    blocks, inputs, open_index = list[dict[str, Any]](), dict[int, str](), None
    for name, fields in events:
        index = fields["index"]
        if name == "content_block_start":
            assert (open_index, index) == (None, len(blocks))
            blocks.append(fields["content_block"])
            open_index = index
            continue
        assert index == open_index
        if name == "content_block_stop":
            open_index = None
            if blocks[index]["type"] == "tool_use":
                blocks[index]["input"] = json.loads(inputs.get(index, "{}"))
            continue
        delta = fields["delta"]
        if delta["type"] == "input_json_delta":
            inputs[index] = inputs.get(index, "") + delta["partial_json"]
        elif delta["type"] == "signature_delta":
            blocks[index]["signature"] = delta["signature"]
        else:
            kind = delta["type"].removesuffix("_delta")
            blocks[index][kind] += delta[kind]
    assert open_index is None
    return blocks


@given(answers())
def test_a_client_that_adds_up_the_deltas_has_the_blocks(parts: list[Part]) -> None:
    blocks, events = told(parts)
    assert rebuilt(events) == blocks.blocks
    starts = [part for part in parts if isinstance(part, ToolCallStart)]
    used = [block["id"] for block in blocks.blocks if block["type"] == "tool_use"]
    assert used == [start.call_id for start in starts]
    assert blocks.uses_tools is bool(starts)


def test_the_events_of_a_text_come_in_the_order_that_clients_expect() -> None:
    _, events = told([ReasoningPart("hm"), TextPart("a")])
    assert [(name, fields.get("delta", {}).get("type")) for name, fields in events] == [
        ("content_block_start", None),
        ("content_block_delta", "thinking_delta"),
        ("content_block_delta", "signature_delta"),
        ("content_block_stop", None),
        ("content_block_start", None),
        ("content_block_delta", "text_delta"),
        ("content_block_stop", None),
    ]


def test_arguments_that_were_cut_off_are_no_input() -> None:
    blocks, _ = told([ToolCallStart(0, "c", "f"), ToolCallArguments(0, '{"x": 1')])
    assert blocks.blocks == [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]
