"""A cloud that says a given text beside a `SayingEngine`, for answers that change hands."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from pd_core.errors import CloudUnavailable
from pd_core.generation import (
    Admitted,
    CloudEvent,
    Extend,
    Finished,
    FinishReason,
    Limits,
    Load,
    ModelCard,
    ServerInfo,
    Start,
    Stop,
    Tokens,
)
from pd_device_client.contract.ports import CloudStream


@dataclass
class SayingCloud:
    """Says the tokens, whatever is asked, and breaks after some of them.

    Attributes:
        card: of the model, as the device's engine has it.
        token_ids: what it says; the last one ends the answer.
        cut_after: its streams break before this position.
        made: how many tokens it has made.
    """

    card: ModelCard
    token_ids: Sequence[int]
    cut_after: int = 1 << 30
    made: int = 0
    starts: list[Start] = field(default_factory=list)

    async def info(self) -> ServerInfo:
        return ServerInfo("test", self.card, Limits(1 << 20, 8, 8), Load())

    async def open(self, start: Start) -> CloudStream:
        self.starts.append(start)
        return _Stream(self, start)

    async def close(self) -> None:
        pass


class _Stream:
    def __init__(self, cloud: SayingCloud, start: Start) -> None:
        self._cloud = cloud
        self._start = start

    async def send(self, message: Extend | Stop) -> None:
        pass

    def cancel(self) -> None:
        pass

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        cloud, said = self._cloud, self._cloud.token_ids
        yield Admitted(Load())
        first = self._start.first_position
        last = min(len(said), self._start.token_limit)
        for position in range(first, last):
            if position >= cloud.cut_after:
                raise CloudUnavailable("the stream broke")
            cloud.made += 1
            yield Tokens(position, (said[position],))
        reason = FinishReason.STOP if last == len(said) else FinishReason.LENGTH
        yield Finished(reason, last - first)
