"""Responses are kept within bounds: by number, by bytes, or not at all."""

import contextlib
from typing import Any

import pytest

from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.json_text import json_bytes
from pd_device_client.api.responses.store import ResponseStore, StoredResponse


def stored(name: str, text: str = "", earlier: tuple[dict[str, Any], ...] = ()) -> StoredResponse:
    output = [{"type": "message", "role": "assistant", "content": text}]
    items = ({"id": "in", "type": "message", "role": "user", "content": "x"},)
    return StoredResponse({"id": name, "output": output}, items, earlier)


def kept(store: ResponseStore, *names: str) -> list[str]:
    found = []
    for name in names:
        with contextlib.suppress(Refusal):
            found.append(store.get(name).response["id"])
    return found


def test_the_one_unused_for_longest_goes_first() -> None:
    store = ResponseStore(2, 1 << 20)
    for name in ("a", "b"):
        store.put(stored(name))
    store.get("a")
    store.put(stored("c"))
    assert kept(store, "a", "b", "c") == ["a", "c"]


def test_bytes_are_bounded_and_one_that_is_larger_is_not_kept() -> None:
    size = stored("a", "x" * 1000).num_bytes
    store = ResponseStore(100, 3 * size)
    for name in "abcd":
        store.put(stored(name, "x" * 1000))
    assert kept(store, *"abcd") == ["b", "c", "d"]
    store.put(stored("e", "x" * 4 * size))
    assert kept(store, *"bcde") == ["b", "c", "d"]
    store.delete("c")
    store.put(stored("f", "x" * 1000))
    assert kept(store, *"bcdf") == ["b", "d", "f"], "a deleted one leaves its bytes"


def test_a_size_is_at_least_that_of_all_that_it_continues() -> None:
    earlier = tuple({"type": "message", "content": "y" * 100} for _ in range(10))
    one = stored("a", "z", earlier)
    assert one.num_bytes >= len(json_bytes(list(one.conversation)))


def test_a_conversation_is_what_was_before_then_input_then_output() -> None:
    one = stored("a", "hello", ({"n": 1},))
    assert [item.get("role") for item in one.conversation] == [None, "user", "assistant"]


@pytest.mark.parametrize(
    ("param", "status", "code"),
    [
        ("response_id", 404, "not_found"),
        ("previous_response_id", 400, "previous_response_not_found"),
    ],
)
def test_one_that_is_not_there_is_a_refusal_that_names_it(
    param: str, status: int, code: str
) -> None:
    with pytest.raises(Refusal, match="'nothing' is not here") as raised:
        ResponseStore(2, 1 << 20).get("nothing", param)
    assert (raised.value.param, raised.value.status, raised.value.code) == (param, status, code)


def test_a_store_that_is_off_keeps_nothing_and_says_so() -> None:
    store = ResponseStore(0, 1 << 20)
    store.put(stored("a"))
    with pytest.raises(Refusal, match="--stored-responses 0"):
        store.get("a")
    with pytest.raises(Refusal, match="--stored-responses 0"):
        store.delete("a")
