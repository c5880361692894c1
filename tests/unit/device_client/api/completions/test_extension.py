"""A key under `pd` that nobody reads is refused: it may be meant to keep words on this device."""

import pytest

from pd_device_client.api.completions.parameters import (
    ChatParameters,
    CompletionParameters,
    read_parameters,
)
from pd_device_client.api.http.errors import Refusal

CHAT = {"messages": [{"role": "user", "content": "a secret"}]}


@pytest.mark.parametrize("key", ["local-only", "localOnly", "privat", "local_only ", ""])
def test_an_unknown_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(Refusal) as raised:
        read_parameters(ChatParameters, CHAT | {"pd": {key: True}})
    assert raised.value.param == f"pd.{ascii(key)[1:-1]}"
    with pytest.raises(Refusal):
        read_parameters(CompletionParameters, {"prompt": "a", "pd": {key: True}})


def test_unknown_keys_beside_it_are_ignored() -> None:
    asked = read_parameters(ChatParameters, CHAT | {"new": 1, "pd": {"local_only": True}})
    assert asked.extension.stays_here
