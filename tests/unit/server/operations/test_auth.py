"""The bearer key: what passes, what does not, and that it is never shown."""

import pytest

from pd_core.errors import Unauthenticated
from pd_server.operations.auth import ApiKey


@pytest.mark.parametrize("header", ["Bearer s3cret", "bearer s3cret", b"Bearer s3cret"])
def test_the_right_key_passes(header: str | bytes) -> None:
    ApiKey("s3cret").check(header)


@pytest.mark.parametrize(
    "header",
    [None, "", "s3cret", "Basic s3cret", "Bearer ", "Bearer s3cre", "Bearer s3cretx", "Bearer é"],
)
def test_anything_else_does_not(header: str | None) -> None:
    with pytest.raises(Unauthenticated) as raised:
        ApiKey("s3cret").check(header)
    assert "s3cret" not in str(raised.value)


def test_without_a_key_all_pass() -> None:
    ApiKey(None).check(None)
    ApiKey(None).check("Bearer anything")


def test_a_key_is_not_in_its_repr() -> None:
    assert "s3cret" not in repr(ApiKey("s3cret"))
