import pytest

from pd_core.errors import LinkCorrupted
from pd_core.generation import (
    Admitted,
    Finished,
    FinishReason,
    Load,
    RefinedPrompt,
    Start,
    Tokens,
)
from pd_core.identity.stream_seal import StreamSeal
from pd_device_client.cloud.seal_check import SealCheck
from pd_proto.v1 import generation_pb2 as pb

START = Start("r", (1, 2, 3), 9)


def _messages(start: Start = START) -> list[pb.GenerateResponse]:
    """A stream as a server sends it."""
    seal = StreamSeal(start)
    return [
        pb.GenerateResponse(admitted=pb.Admitted()),
        pb.GenerateResponse(
            tokens=pb.Tokens(
                first_position=0, token_ids=[7], seal=seal.after_tokens(Tokens(0, (7,)))
            )
        ),
        pb.GenerateResponse(
            tokens=pb.Tokens(
                first_position=1, token_ids=[8, 9], seal=seal.after_tokens(Tokens(1, (8, 9)))
            )
        ),
        pb.GenerateResponse(
            finished=pb.Finished(
                reason=pb.FINISH_REASON_LIMIT,
                tokens_generated=3,
                seal=seal.after_finished(Finished(FinishReason.LENGTH, 3)),
            )
        ),
    ]


def test_a_stream_that_arrives_as_it_was_sent() -> None:
    check = SealCheck(START, sealed=True)
    assert [check.event(message) for message in _messages()] == [
        Admitted(Load()),
        Tokens(0, (7,)),
        Tokens(1, (8, 9)),
        Finished(FinishReason.LENGTH, 3),
    ]


@pytest.mark.parametrize("sealed", [True, False])
def test_a_changed_token_ends_the_stream_at_its_message(sealed: bool) -> None:
    messages = _messages()
    messages[2].tokens.token_ids[1] ^= 4
    check = SealCheck(START, sealed=sealed)
    assert [check.event(message) for message in messages[:2]][1] == Tokens(0, (7,))
    with pytest.raises(LinkCorrupted):
        check.event(messages[2])


def test_a_lost_message_is_noticed_at_the_next() -> None:
    first, _, second, end = _messages()
    for after in (second, end):
        check = SealCheck(START, sealed=True)
        check.event(first)
        with pytest.raises(LinkCorrupted):
            check.event(after)


def test_a_cloud_that_read_another_start_is_noticed_at_the_first_token() -> None:
    check = SealCheck(START, sealed=True)
    first, tokens, *_ = _messages(Start("r", (1, 2, 2), 9))
    check.event(first)
    with pytest.raises(LinkCorrupted):
        check.event(tokens)


def test_a_missing_seal_is_a_fault_only_where_seals_were_promised() -> None:
    messages = _messages()
    for message in messages[1:3]:
        message.tokens.ClearField("seal")
    messages[3].finished.ClearField("seal")
    old = SealCheck(START, sealed=False)
    assert len([old.event(message) for message in messages]) == 4
    check = SealCheck(START, sealed=True)
    check.event(messages[0])
    with pytest.raises(LinkCorrupted):
        check.event(messages[1])


def test_a_changed_refined_prompt_is_noticed() -> None:
    start, refined = Start("r", (1, 2, 3), 9, keep_ratio=0.5), RefinedPrompt(((0, 1), (2, 3)))
    ranges = [pb.PositionRange(first=first, end=end) for first, end in refined.kept_ranges]
    seal = StreamSeal(start).after_refined(refined)
    message = pb.GenerateResponse(refined_prompt=pb.RefinedPrompt(kept_ranges=ranges, seal=seal))
    assert SealCheck(start, sealed=True).event(message) == refined
    message.refined_prompt.kept_ranges[0].end = 2
    with pytest.raises(LinkCorrupted):
        SealCheck(start, sealed=True).event(message)
