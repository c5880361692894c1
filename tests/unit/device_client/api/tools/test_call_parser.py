"""Calls of functions in a text, however it comes in pieces."""

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pd_device_client.api.tools.call_parser import CallParser
from pd_device_client.api.tools.families import FAMILIES, FamilyName
from pd_device_client.api.tools.parts import (
    Part,
    TextPart,
    ToolCallArguments,
    ToolCallStart,
    joined,
)

NAMES = ("get_weather", "get", "add")
HERMES, LLAMA, MISTRAL, JSON = (
    FamilyName(name) for name in ("hermes", "llama3", "mistral", "json")
)
WEATHER = '{"city": "Paris \\ud83d\\ude00 \\"x\\" }", "days": [1, {"a": {}}]}'
CALL = '{"name": "get_weather", "arguments": ' + WEATHER + "}"
ADD = '{"name": "add", "arguments": {"a": 1}}'


def parser(family: FamilyName, *, parallel: bool = True) -> CallParser:
    return CallParser(FAMILIES[family], NAMES, lambda i: f"id{i}", parallel=parallel)


def parsed(family: FamilyName, pieces: Sequence[str], *, parallel: bool = True) -> list[Part]:
    reader = parser(family, parallel=parallel)
    parts = [part for piece in pieces for part in reader.push(piece)]
    return joined([*parts, *reader.end()])


def calls(*named: tuple[str, str], first: int = 0) -> list[Part]:
    out: list[Part] = []
    for i, (name, arguments) in enumerate(named, first):
        out += [ToolCallStart(i, f"id{i}", name), ToolCallArguments(i, arguments)]
    return out


W, A = ("get_weather", WEATHER), ("add", '{"a": 1}')
TEXTS: list[tuple[FamilyName, str, list[Part]]] = [
    (HERMES, f"<tool_call>\n{CALL}\n</tool_call>", calls(W)),
    (HERMES, f"Sure.\n<tool_call>{CALL}</tool_call>\n", [TextPart("Sure."), *calls(W)]),
    (HERMES, f"<tool_call>{CALL}</tool_call>\n<tool_call>{ADD}</tool_call>", calls(W, A)),
    (HERMES, f"<tool_call>{CALL}\n{ADD}</tool_call>", calls(W, A)),
    (HERMES, f"<tool_call>[{CALL}, {ADD}]</tool_call>", calls(W, A)),
    (HERMES, f"<tool_call>{CALL}</tool_call>\nDone.", [*calls(W), TextPart("Done.")]),
    (
        HERMES,
        f"Now: <tool_call>{CALL}</tool_call>\nDone.",
        [TextPart("Now:"), *calls(W), TextPart("\nDone.")],
    ),
    # Without the last brace, as small models forget it; and cut off.
    (HERMES, f"<tool_call>{CALL[:-1]}</tool_call>", calls(W)),
    (HERMES, f"<tool_call>{CALL[:-1]}\n</tool_call>{ADD}", [*calls(W), TextPart(ADD)]),
    (HERMES, f"<tool_call>{CALL[:60]}", calls(("get_weather", WEATHER[: 60 - 37]))),
    (HERMES, f"<<tool_call>{ADD}</tool_call>", [TextPart("<"), *calls(A)]),
    (HERMES, f"<tool_call>x <tool_call>{ADD}</tool_call>", [TextPart("<tool_call>x"), *calls(A)]),
    # The other ways to write a call.
    (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>', calls(A)),
    (HERMES, '<tool_call>{"name": "add", "parameters": {"a": 1}}</tool_call>', calls(A)),
    (
        HERMES,
        '<tool_call>{"id": [7, "}"], "name": "add", "x": 1.5e3}</tool_call>',
        calls(("add", "{}")),
    ),
    (HERMES, '<tool_call>{"name": "add", "arguments": null}</tool_call>', calls(("add", "{}"))),
    (HERMES, '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>', calls(A)),
    (
        HERMES,
        '<tool_call>{"name": "add", "arguments": '
        '"{\\"a\\": \\"\\ud83d\\ude00\\ud83d\\"}"}</tool_call>',
        calls(("add", '{"a": "\U0001f600\ufffd"}')),
    ),
    (HERMES, '<tool_call>{"name": "\\u0061dd", "arguments": {}}</tool_call>', calls(("add", "{}"))),
    (LLAMA, ADD.replace("arguments", "parameters"), calls(A)),
    (LLAMA, f"<|python_tag|>{ADD}; {CALL}", calls(A, W)),
    (LLAMA, f"{ADD}\nDone, {{}}", [*calls(A), TextPart("Done, {}")]),
    (MISTRAL, f"[TOOL_CALLS] [{CALL}, {ADD}]", calls(W, A)),
    (MISTRAL, f"[TOOL_CALLS]get_weather[ARGS]{WEATHER}", calls(W)),
    (MISTRAL, f"[TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]{WEATHER}", calls(W)),
    (MISTRAL, '[TOOL_CALLS]add{"a": 1}[TOOL_CALLS]add[ARGS]{"a": 1}', calls(A, A)),
    (JSON, f"[{CALL},\n{ADD}]", calls(W, A)),
    (JSON, f"```json\n{CALL}\n```", calls(W)),
    (JSON, f"```\n{CALL}\n```", calls(W)),
    (JSON, f"I call it:\n{ADD}", [TextPart("I call it:"), *calls(A)]),
    (JSON, f"<tool_call>{ADD}</tool_call>", calls(A)),
]

NO_CALLS = [
    "",
    " ",
    "Hello.\n",
    "<tool_call>",
    "<tool_call></tool_call>",
    "<tool_call>{}</tool_call>",
    '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
    '<tool_call>{"name": "add"',
    '<tool_call>{"name": 7, "arguments": {}}',
    '<tool_call>{"name": "add", "arguments": [1]}',
    '{"name": "Bob", "parameters": {}}',
    '{"a": [1, 2, {"name": "add"}]}',
    "[1, 2]",
    "[]",
    " {\n} ",
    "```json\n{}\n```\n",
    "[TOOL_CALLS] nothing",
    "[TOOL_CALLS]other[ARGS]{}",
    "<|python_tag|>print(1)",
    'In a line: {"name": "add", "arguments": {}}',
    "a < b, <tool",
]


def test_what_each_family_writes() -> None:
    for family, text, expected in TEXTS:
        assert parsed(family, [text]) == expected, text


@pytest.mark.parametrize("family", FamilyName)
@pytest.mark.parametrize("text", NO_CALLS)
def test_what_is_no_call_is_text_to_the_last_character(family: FamilyName, text: str) -> None:
    assert parsed(family, [text]) == ([TextPart(text)] if text else [])


@pytest.mark.slow
@pytest.mark.parametrize("family", FamilyName)
@settings(max_examples=50)
@given(data=st.data())
def test_every_way_to_cut_a_text_gives_the_same(family: FamilyName, data: st.DataObject) -> None:
    every = [text for _, text, _ in TEXTS] + NO_CALLS
    # Several texts in a row, with odd characters and tags between them.
    mixed = st.lists(st.sampled_from([*every, *'<[{`}]\n ,"\\', "<tool_call>"]), max_size=4)
    text = "".join(data.draw(mixed))
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    ends = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(ends)]
    whole = parsed(family, [text])
    assert parsed(family, pieces) == whole
    assert parsed(family, list(text)) == whole
    _check_form(whole)


@pytest.mark.parametrize("family", FamilyName)
@settings(max_examples=50)
@given(text=st.text(alphabet='<tol_ca>/[TOOL_CALLS]{}:,"name`\n json\\u', max_size=60))
def test_without_a_function_nothing_is_lost(family: FamilyName, text: str) -> None:
    reader = CallParser(FAMILIES[family], [], str)
    parts = joined([part for c in text for part in reader.push(c)] + reader.end())
    assert parts == ([TextPart(text)] if text else [])


def _check_form(parts: Sequence[Part]) -> None:
    """A call has its start before its arguments, and is done before the next."""
    current = -1
    for part in parts:
        match part:
            case ToolCallStart(index, call_id, name):
                assert (index, call_id) == (current + 1, f"id{index}")
                assert name in NAMES
                current = index
            case ToolCallArguments(index, text):
                assert index == current
                assert text
            case TextPart(text):
                assert text


def test_arguments_come_as_they_are_made() -> None:
    reader = parser(HERMES)
    assert reader.push('<tool_call>{"name": "add", "arguments": ') == []
    assert reader.push('{"a"') == calls(("add", '{"a"'))
    assert reader.push(": 1") == [ToolCallArguments(0, ": 1")]
    assert reader.push("}}") == [ToolCallArguments(0, "}")]
    assert reader.push("</tool_call>") + reader.end() == []


def test_text_before_any_call_is_not_held_back() -> None:
    reader = parser(HERMES)
    assert reader.push("Hello, wor") == [TextPart("Hello, wor")]
    assert reader.push("ld <") == [TextPart("ld")]
    assert reader.push("b") == [TextPart(" <b")]


def test_without_parallel_calls_the_first_counts() -> None:
    text = f"<tool_call>{CALL}</tool_call><tool_call>{ADD}</tool_call> End"
    assert parsed(HERMES, [text], parallel=False) == [*calls(W), TextPart("End")]


def test_what_never_becomes_a_call_is_held_back_no_longer() -> None:
    reader = parser(JSON)
    text = '{"x": "' + "a" * 70_000
    assert reader.push(text) == [TextPart(text)]


def test_the_arguments_are_the_models_own_text() -> None:
    starts = [
        part
        for part in parsed(HERMES, [f"<tool_call>{CALL}"])
        if isinstance(part, ToolCallArguments)
    ]
    assert json.loads(starts[0].text) == json.loads(WEATHER)
