"""A real local engine slowed down to a speed profile; its results are labelled throttled."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from pd_core.generation import ModelCard, TokenLogprobs
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ports import LocalEngine, LocalSequence
from pd_device_client.planning.speeds.profiles import SpeedProfile

__all__ = ["ThrottledEngine"]


class ThrottledEngine:
    """Sleeps after each pass until the profile's time has gone by; never speeds anything up."""

    def __init__(self, engine: LocalEngine, profile: SpeedProfile) -> None:
        self._engine = engine
        self._profile = profile
        name = f"{engine.card.name}, throttled to {profile.name}"
        self._card = replace(engine.card, name=name)
        self.chunk_tokens = engine.chunk_tokens

    @property
    def card(self) -> ModelCard:
        """The real engine's card, labelled."""
        return self._card

    @property
    def leaves_out(self) -> bool:
        """Ask the real engine."""
        return self._engine.leaves_out

    def cached_tokens(self, prompt_token_ids: Sequence[int]) -> int:
        """Ask the real engine."""
        return self._engine.cached_tokens(prompt_token_ids)

    def open(
        self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()
    ) -> "_ThrottledSequence":
        """Open a sequence of the real engine."""
        num_cached = self._engine.cached_tokens(prompt_token_ids)
        sequence = self._engine.open(sampling, prompt_token_ids)
        return _ThrottledSequence(sequence, self._profile, num_cached)

    async def close(self) -> None:
        """Free the real engine."""
        await self._engine.close()


class _ThrottledSequence:
    def __init__(self, sequence: LocalSequence, profile: SpeedProfile, num_cached: int) -> None:
        self._sequence = sequence
        self._profile = profile
        self._num_tokens = num_cached

    @property
    def logprobs(self) -> TokenLogprobs | None:
        return self._sequence.logprobs

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._profile.pass_s(self._num_tokens, len(token_ids))
        sampled = await self._sequence.feed(token_ids, sample_position, positions)
        self._num_tokens += len(token_ids)
        await asyncio.sleep(max(end_s - loop.time(), 0.0))
        return sampled

    def close(self) -> None:
        self._sequence.close()
