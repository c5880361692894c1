"""Errors that were told keep nothing of their request."""

import gc
import weakref

import pytest

from pd_core.errors import InvalidRequest, PromptTooLong, drop_frames


class Request:
    """Stands for millions of token ids."""


@pytest.mark.parametrize("chained", [False, True])
def test_a_told_error_frees_its_request_at_once_even_in_a_cycle(chained: bool) -> None:
    def refuse(request: Request) -> None:
        reason = PromptTooLong("too long")  # this frame holds the error, and the error this frame
        raise reason

    def serve(request: Request) -> None:
        try:
            refuse(request)
        except PromptTooLong as error:
            if chained:
                raise InvalidRequest("refused") from error
            raise

    def held(*, drop: bool) -> bool:
        request = Request()
        seen = weakref.ref(request)
        try:
            serve(request)
        except (InvalidRequest, PromptTooLong) as error:
            del request
            if drop:
                drop_frames(error)
        return seen() is not None

    gc.collect()
    gc.disable()
    try:
        assert held(drop=False), "otherwise this proves nothing"
        assert not held(drop=True)
    finally:
        gc.enable()
