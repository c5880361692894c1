"""A local engine that fails, or stands still for a while, at one of its passes."""

import asyncio
from collections.abc import Sequence

from pd_core.errors import EngineError
from pd_core.generation import ModelCard, TokenLogprobs
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ports import LocalEngine, LocalSequence

__all__ = ["FailingEngine"]


class FailingEngine:
    """Passes everything on to an engine until one pass.

    Args:
        engine: the engine.
        at_pass: the pass at which it happens, over all sequences, from 0.
        pause_s: seconds for which it stands still there; None: it fails from there on.
    """

    def __init__(self, engine: LocalEngine, at_pass: int, pause_s: float | None) -> None:
        self._engine = engine
        self._left = at_pass
        self._pause_s = pause_s
        self.chunk_tokens = engine.chunk_tokens

    @property
    def card(self) -> ModelCard:
        """The engine's."""
        return self._engine.card

    @property
    def leaves_out(self) -> bool:
        """As the engine."""
        return self._engine.leaves_out

    def cached_tokens(self, prompt_token_ids: Sequence[int]) -> int:
        """Ask the engine."""
        return self._engine.cached_tokens(prompt_token_ids)

    def open(self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()) -> LocalSequence:
        """Open a sequence of the engine."""
        return _FailingSequence(self, self._engine.open(sampling, prompt_token_ids))

    async def close(self) -> None:
        """Close the engine."""
        await self._engine.close()

    async def strike(self) -> None:
        """Count a pass; fail or wait if it is the one.

        Raises:
            EngineError: it fails.
        """
        self._left -= 1
        if self._left >= 0:
            return
        if self._pause_s is None:
            raise EngineError("the local engine failed, as it was to")
        if self._left == -1:
            await asyncio.sleep(self._pause_s)


class _FailingSequence:
    def __init__(self, engine: FailingEngine, sequence: LocalSequence) -> None:
        self._engine = engine
        self._sequence = sequence

    @property
    def logprobs(self) -> TokenLogprobs | None:
        return self._sequence.logprobs

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        await self._engine.strike()
        return await self._sequence.feed(token_ids, sample_position, positions)

    def close(self) -> None:
        self._sequence.close()
