"""The keys of a server: what passes, as whom, and that none is ever shown."""

import pytest

from pd_core.errors import QuotaExceeded, Unauthenticated
from pd_server.keys.key_file import NamedKey, digest
from pd_server.keys.keyring import Keyring
from pd_server.keys.quota import Quota


def _key(name: str, *keys: str, quota: Quota | None = None) -> NamedKey:
    return NamedKey(name, tuple(digest(key.encode()) for key in keys), quota or Quota())


KEYRING = Keyring([_key("anna", "s3cret", "s3cret-new"), _key("bert", "other")])


@pytest.mark.parametrize("header", ["Bearer s3cret", "bearer s3cret-new", b"Bearer s3cret"])
def test_a_key_is_its_owners(header: str | bytes) -> None:
    assert KEYRING.account(header).name == "anna"
    assert KEYRING.account("Bearer other").name == "bert"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "s3cret",
        "Basic s3cret",
        "Bearer ",
        "Bearer s3cre",
        "Bearer s3cretx",
        "Bearer é",
        "Bearer \ud800",
        b"Bearer \xff",
        "Bearer " + "x" * 1_000_000,
        f"Bearer {digest(b's3cret').hex()}",  # who reads the file of hashes has no key
    ],
)
def test_anything_else_is_refused(header: str | bytes | None) -> None:
    with pytest.raises(Unauthenticated) as raised:
        KEYRING.account(header)
    assert "s3cret" not in str(raised.value)


def test_without_keys_all_pass() -> None:
    assert Keyring().account(None).name == ""
    assert Keyring().account("Bearer anything").name == ""


def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append(known)
        return given == known

    monkeypatch.setattr("pd_server.keys.keyring.hmac.compare_digest", compare)
    for header in ("Bearer s3cret", "Bearer other", "Bearer wrong"):
        compared.clear()
        try:
            KEYRING.account(header)
        except Unauthenticated:
            assert header == "Bearer wrong"
        assert len(compared) == 3


def test_new_keys_hold_at_once_and_what_was_used_stays_used() -> None:
    keyring = Keyring([_key("anna", "old", quota=Quota(streams=1))])
    keyring.account("Bearer old").admit(1)
    keyring.replace([_key("anna", "old", "new", quota=Quota(streams=1)), _key("bert", "b")])
    assert keyring.names == ("anna", "bert")
    with pytest.raises(QuotaExceeded):
        keyring.account("Bearer new").admit(1)
    keyring.replace([_key("anna", "new")])
    with pytest.raises(Unauthenticated):
        keyring.account("Bearer old")


def test_a_server_that_had_keys_never_opens_to_all() -> None:
    keyring = Keyring([_key("anna", "old")])
    keyring.replace([])
    for header in (None, "Bearer old"):
        with pytest.raises(Unauthenticated):
            keyring.account(header)


def test_no_key_is_in_its_repr() -> None:
    assert repr(KEYRING) == "Keyring(anna, bert)"
    assert repr(Keyring()) == "Keyring(open to all)"
