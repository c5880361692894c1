"""Parts become items, and the events rebuild exactly those items on the other side."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pd_device_client.api.responses.output import Output
from pd_device_client.api.tools.parts import (
    Part,
    ReasoningPart,
    TextPart,
    ToolCallArguments,
    ToolCallStart,
    joined,
)

_TEXTS = st.text(min_size=1, max_size=5)


@st.composite
def answers(draw: st.DrawFn) -> list[Part]:
    parts: list[Part] = []
    for number in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["text", "reasoning", "call"]))
        pieces = draw(st.lists(_TEXTS, min_size=1, max_size=4))
        if kind == "call":
            parts.append(ToolCallStart(number, f"call_{number}", "add"))
            parts += [ToolCallArguments(number, piece) for piece in pieces]
        else:
            make = TextPart if kind == "text" else ReasoningPart
            parts += [make(piece) for piece in pieces]
    return parts


def told(parts: list[Part], status: str = "completed") -> tuple[Output, list[tuple[str, Any]]]:
    output, events = Output("x"), list[tuple[str, Any]]()
    for part in parts:
        events += output.push(part)
    events += output.close(status)
    return output, events


def rebuilt(events: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Do what a client does: put the items together from added items and deltas."""
    items: list[dict[str, Any]] = []
    for name, fields in events:
        if name == "response.output_item.added":
            assert fields["output_index"] == len(items)
            items.append(fields["item"])
        elif name == "response.content_part.added":
            items[fields["output_index"]]["content"] = [fields["part"]]
        elif name == "response.function_call_arguments.delta":
            items[fields["output_index"]]["arguments"] += fields["delta"]
        elif name.endswith(".delta"):
            items[fields["output_index"]]["content"][0]["text"] += fields["delta"]
        elif name == "response.output_item.done":
            items[fields["output_index"]]["status"] = fields["item"]["status"]
            assert items[fields["output_index"]] == fields["item"]
        if "item_id" in fields:
            assert fields["item_id"] == items[fields["output_index"]]["id"]
    return items


@given(answers())
def test_a_client_that_adds_up_the_deltas_has_the_items(parts: list[Part]) -> None:
    output, events = told(parts)
    assert rebuilt(events) == output.items
    assert len({item["id"] for item in output.items}) == len(output.items)
    assert {item["status"] for item in output.items} <= {"completed"}
    said = list[Part]()
    for item in output.items:
        if item["type"] == "function_call":
            number = int(item["call_id"].removeprefix("call_"))
            said.append(ToolCallStart(number, item["call_id"], item["name"]))
            said.append(ToolCallArguments(number, item["arguments"]))
        else:
            make = TextPart if item["type"] == "message" else ReasoningPart
            said.append(make(item["content"][0]["text"]))
    assert said == joined(parts)


def test_the_events_of_a_message_come_in_the_order_that_clients_expect() -> None:
    _, events = told([TextPart("a"), TextPart("b")])
    assert [name.removeprefix("response.") for name, _ in events] == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert events[-3][1]["text"] == "ab"


def test_an_item_that_is_cut_off_is_incomplete_and_those_before_are_not() -> None:
    parts: list[Part] = [TextPart("a"), ToolCallStart(0, "c", "f"), ToolCallArguments(0, '{"x')]
    output, events = told(parts, "incomplete")
    assert [item["status"] for item in output.items] == ["completed", "incomplete"]
    assert events[-2][0] == "response.function_call_arguments.done"
    assert events[-2][1]["arguments"] == '{"x'


def test_an_empty_answer_has_no_items() -> None:
    output, events = told([])
    assert (output.items, events) == ([], [])
