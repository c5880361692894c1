"""What a model thinks is split off its answer, however the text comes in pieces."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pd_device_client.api.tools.call_parser import CallParser
from pd_device_client.api.tools.families import FAMILIES, FamilyName
from pd_device_client.api.tools.forced_call import ForcedCallParser
from pd_device_client.api.tools.parts import (
    Part,
    PartsParser,
    ReasoningPart,
    TextPart,
    ToolCallArguments,
    ToolCallStart,
    joined,
)
from pd_device_client.api.tools.reasoning import PlainParser, ReasoningParser


def parsed(parser: PartsParser, pieces: Sequence[str]) -> list[Part]:
    return joined([*(part for piece in pieces for part in parser.push(piece)), *parser.end()])


def split(pieces: Sequence[str], *, begun: bool = False) -> list[Part]:
    return parsed(ReasoningParser(PlainParser(), begun=begun), pieces)


R, T = ReasoningPart, TextPart
CASES: list[tuple[str, list[Part]]] = [
    ("", []),
    ("Hello", [T("Hello")]),
    (" \n", [T(" \n")]),
    ("<thin", [T("<thin")]),
    ("<think>\nA b\n\nc\n</think>\n\nHello\n", [R("A b\n\nc"), T("Hello\n")]),
    ("\n<think>A</think>B", [R("A"), T("B")]),
    ("<think>\n\n</think>\n\nB", [T("B")]),
    ("<think>A</think>", [R("A")]),
    ("<think>A < b </ c </thin", [R("A < b </ c </thin")]),
    ("<think>A <</think>B", [R("A <"), T("B")]),
    ("<think>A</think><think>B</think>", [R("A"), T("<think>B</think>")]),
    ("So <think> is a tag</think>.", [T("So <think> is a tag</think>.")]),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_thoughts_stand_at_the_beginning(text: str, expected: list[Part]) -> None:
    assert split([text]) == expected
    assert split(list(text)) == expected


def test_a_prompt_may_have_opened_the_thoughts() -> None:
    assert split(["\nA\n</think>\n\nB"], begun=True) == [R("A"), T("B")]
    assert split(["A"], begun=True) == [R("A")]
    assert split(["</think>B"], begun=True) == [T("B")]


def test_calls_follow_thoughts_and_are_none_inside() -> None:
    call = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    inner = CallParser(FAMILIES[FamilyName.HERMES], ["add"], str)
    parts = parsed(ReasoningParser(inner), list(f"<think>{call}</think>{call}"))
    assert parts == [R(call), ToolCallStart(0, "0", "add"), ToolCallArguments(0, "{}")]


@settings(max_examples=50)
@given(text=st.text(alphabet="<think>/ \na", max_size=40), cuts=st.lists(st.integers(0, 60)))
def test_every_way_to_cut_a_text_gives_the_same(text: str, cuts: Sequence[int]) -> None:
    for whole in (text, f"<think>{text}", f"<think>{text}</think>{text}"):
        ends = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
        pieces = [whole[a:b] for a, b in pairwise(ends)]
        for begun in (False, True):
            assert split(pieces, begun=begun) == split([whole], begun=begun)


def test_a_forced_calls_text_is_its_arguments() -> None:
    for pieces in (['\n {"a": "b c"}\n'], list('{"a": "b c"} \n')):
        parts = parsed(ForcedCallParser("add", lambda i: f"id{i}"), pieces)
        assert parts == [ToolCallStart(0, "id0", "add"), ToolCallArguments(0, '{"a": "b c"}')]
    assert parsed(ForcedCallParser("add", str), ["", " "]) == []
