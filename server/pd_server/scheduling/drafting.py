"""Guesses at the next tokens of streams that decode, computed in the step of the next one.

They change no token: a guess counts only where the sampler chooses it. They take only what a step
has left: no blocks but those that a request holds, and nothing while a prompt is being computed.
What a further row costs depends on how many streams decode, so each size of step has its account.
"""

from collections.abc import Callable, Sequence

from pd_core.speculation.prompt_lookup import PromptLookup
from pd_core.speculation.speculation import Speculation
from pd_server.engine.live_request import LiveRequest
from pd_server.scheduling.schedule import Chunk

__all__ = ["Drafting"]


class Drafting:
    """Adds guesses to steps. Owned by the engine's thread.

    Args:
        draft_tokens: most guesses of one request in a step; 0: none ever.
        max_step_tokens: tokens computed in one step.
        room_of: returns the number of tokens for which a running request holds blocks.

    Raises:
        ConfigError: draft_tokens is out of range.
    """

    def __init__(
        self, draft_tokens: int, max_step_tokens: int, room_of: Callable[[int], int]
    ) -> None:
        self._draft_tokens = draft_tokens
        self._max_step_tokens = max_step_tokens
        self._room_of = room_of
        self._by_size = {0: Speculation(draft_tokens)}

    @property
    def num_drafted(self) -> int:
        """Tokens guessed so far."""
        return sum(account.num_drafted for account in self._by_size.values())

    @property
    def num_accepted(self) -> int:
        """Guesses that were right."""
        return sum(account.num_accepted for account in self._by_size.values())

    def with_drafts(self, chunks: list[Chunk]) -> list[Chunk]:
        """Return a step's chunks, with guesses where they pay and there is room."""
        if not self._only_decodes(chunks):
            return chunks
        spare = self._max_step_tokens // len(chunks) - 1
        most = min(self._account(len(chunks)).draft_tokens(), spare)
        return [self._with_draft(chunk, most) for chunk in chunks] if most > 0 else chunks

    def ran(self, chunks: Sequence[Chunk], num_accepted: int, seconds: float) -> None:
        """Record a step.

        Args:
            chunks: what was computed.
            num_accepted: how many guesses were right.
            seconds: its duration.
        """
        if self._only_decodes(chunks):
            num_drafted = sum(len(chunk.draft) for chunk in chunks)
            account = self._account(len(chunks))
            account.passed(num_drafted, num_accepted, seconds, len(chunks))

    def _only_decodes(self, chunks: Sequence[Chunk]) -> bool:
        return bool(self._draft_tokens and chunks) and all(chunk.decodes for chunk in chunks)

    def _account(self, num_sequences: int) -> Speculation:
        """Return the account of steps about as large."""
        size = num_sequences.bit_length()
        if size not in self._by_size:
            self._by_size[size] = Speculation(self._draft_tokens)
        return self._by_size[size]

    def _with_draft(self, chunk: Chunk, most: int) -> Chunk:
        request = chunk.request
        num_tokens = len(request.token_ids)
        left = request.token_limit - request.next_position - 1  # the step makes one in any case
        most = min(most, left, self._room_of(request.request_id) - num_tokens)
        if most < 1:
            return chunk
        draft = _lookup(request).draft(most)
        return chunk._replace(draft=tuple(draft))


def _lookup(request: LiveRequest) -> PromptLookup:
    """Return where a request's tokens came before, up to date."""
    if request.lookup is None:
        request.lookup = PromptLookup()
    request.lookup.extend(request.token_ids[request.lookup.num_tokens :])
    return request.lookup
