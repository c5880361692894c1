"""A stream's token ids, checked against its text: an id is used once its text has come."""

from collections.abc import Callable, Sequence

from pd_core.errors import ProtocolError
from pd_device_client.cloud.openai.chunk import Chunk
from pd_device_client.cloud.openai.device_model import DeviceModel

__all__ = ["CheckedIds", "UncheckedIds"]

_MOST_WAITING = 64  # tokens whose text has not come

Repair = Callable[[Sequence[int], str], tuple[int, ...]]


class CheckedIds:
    """Takes a stream's chunks and gives its ids.

    Both are compared without white space and broken characters, which detokenisers treat in their
    own ways.

    Args:
        model: what this device runs.
        behind: the tokens before the first.
        repair: gives a chunk's ids where the server leaves some out; None: it does not.
    """

    def __init__(
        self, model: DeviceModel, behind: Sequence[int], repair: Repair | None = None
    ) -> None:
        self._vocab_size = model.card.vocab_size
        self._stream = model.tokenizer.stream(behind=behind)
        self._repair = repair
        self._waiting: list[int] = []  # their text has not all come
        self._ours = ""  # text of the ids that the server has not sent yet
        self._theirs = ""  # text of the server that no id has given yet

    def take(self, chunk: Chunk) -> tuple[int, ...]:
        """Return the ids that can be used now.

        Raises:
            ProtocolError: the server sends no ids, an id that is none, or ids of another text.
        """
        ids = chunk.token_ids
        if ids is None:
            if chunk.text:
                raise ProtocolError("the cloud sends text without its token ids")
            ids = ()
        if self._repair is not None:
            ids = self._repair(ids, chunk.text)
        for token_id in ids:
            if token_id >= self._vocab_size:
                raise ProtocolError(
                    f"the cloud sent token id {token_id}, and ids lie below {self._vocab_size}; "
                    "does it run the same model?"
                )
            self._ours += _bare("".join(text for _, text in self._stream.push(token_id)))
        self._theirs += _bare(chunk.text)
        self._waiting += ids
        return self._compared()

    def end(self) -> tuple[int, ...]:
        """Return the ids that were left when the stream ended; raises as `take`."""
        self._ours += _bare("".join(text for _, text in self._stream.flush()))
        left = self._compared()
        if self._ours or self._theirs:
            raise _differ()
        return (*left, *self._waiting)

    def _compared(self) -> tuple[int, ...]:
        common = min(len(self._ours), len(self._theirs))
        if self._ours[:common] != self._theirs[:common]:
            raise _differ()
        self._ours, self._theirs = self._ours[common:], self._theirs[common:]
        if self._ours or self._theirs:  # one of both holds text back
            if len(self._waiting) > _MOST_WAITING:
                raise ProtocolError("the cloud sends token ids without their text")
            return ()
        ready, self._waiting = tuple(self._waiting), []
        return ready


class UncheckedIds:
    """The ids as they come, where no model runs here whose text they could be compared with."""

    def take(self, chunk: Chunk) -> tuple[int, ...]:
        """Return the chunk's ids.

        Raises:
            ProtocolError: it has text and no ids.
        """
        if chunk.token_ids is None and chunk.text:
            raise ProtocolError("the cloud sends text without its token ids")
        return chunk.token_ids or ()

    def end(self) -> tuple[int, ...]:
        """Return nothing."""
        return ()


def _bare(text: str) -> str:
    return "".join(text.replace("\N{REPLACEMENT CHARACTER}", "").split())


def _differ() -> ProtocolError:
    return ProtocolError(
        "the cloud's token ids are not those of its text; does it run the same model?"
    )
