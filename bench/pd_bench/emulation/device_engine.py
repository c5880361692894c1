"""A local engine that only sleeps, as a speed profile says, and takes tokens from a hash.

For fleet measurements: many devices on one machine. Everything measured with it is labelled
emulated. It sleeps on the running loop, so it works with real and virtual clocks.
"""

import asyncio
import random
from collections.abc import Sequence
from copy import copy
from typing import Any

from pd_core.generation import Fingerprints, ModelCard, TokenLogprobs
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling_params import SamplingParams
from pd_device_client.planning.speeds.profiles import SpeedProfile

__all__ = ["EmulatedDeviceEngine", "EmulatedSequence"]


class EmulatedDeviceEngine:
    """A device as fast as its profile.

    Args:
        profile: prefill and decode times, with their spread.
        vocab_size: token ids are below this; the cloud's.
        eos_token_ids: the cloud's.
        seed: seed of the spread.
        max_context_tokens: prompt and response together.
        chunk_tokens: tokens of one prefill pass.
        fingerprints: fingerprints of the model it stands for, the cloud's.
    """

    def __init__(
        self,
        profile: SpeedProfile,
        *,
        vocab_size: int,
        eos_token_ids: Sequence[int],
        seed: int = 0,
        max_context_tokens: int = 1 << 20,
        chunk_tokens: int = 128,
        fingerprints: Fingerprints | None = None,
    ) -> None:
        self._profile = profile
        self._random = random.Random(seed)
        self._one_at_a_time = asyncio.Lock()
        self.chunk_tokens = chunk_tokens
        self._card = ModelCard(
            name=f"emulated {profile.name}",
            engine="emulated",
            fingerprints=fingerprints or Fingerprints(),
            sampler="rolling-hash",
            vocab_size=vocab_size,
            eos_token_ids=tuple(eos_token_ids),
            max_context_tokens=max_context_tokens,
            logprobs=True,
        )

    @property
    def card(self) -> ModelCard:
        """The card of the model it stands for."""
        return self._card

    @property
    def leaves_out(self) -> bool:
        """Yes: it sleeps only for what it reads."""
        return True

    def cached_tokens(self, prompt_token_ids: Sequence[int]) -> int:
        """Return 0: it keeps no prefixes."""
        return 0

    def open(
        self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()
    ) -> "EmulatedSequence":
        """Open an empty sequence."""
        return EmulatedSequence(self, sampling, prompt_token_ids)

    async def close(self) -> None:
        """Do nothing: it holds nothing."""

    async def work(self, first_position: int, num_tokens: int) -> None:
        """Take the time of one forward pass; passes of several sequences queue."""
        seconds = self.draw_s(first_position, num_tokens)
        async with self._one_at_a_time:
            await asyncio.sleep(seconds)

    @property
    def random_state(self) -> tuple[Any, ...]:
        """The state of the random generator; can be restored."""
        return self._random.getstate()

    @random_state.setter
    def random_state(self, state: tuple[Any, ...]) -> None:
        self._random.setstate(state)

    def draw_s(self, first_position: int, num_tokens: int) -> float:
        """Return how long the next pass takes; every call draws anew."""
        seconds = self._profile.pass_s(first_position, num_tokens)
        return seconds * max(1.0 + self._profile.spread * self._random.gauss(0, 1), 0.0)


class EmulatedSequence:
    """See `LocalSequence`.

    Its tokens do not depend on what it leaves out of a prompt, unlike a model's: so a handoff can
    still be checked token by token.

    Attributes:
        state: the hash after all tokens up to the last one fed.
    """

    def __init__(
        self,
        engine: EmulatedDeviceEngine,
        sampling: SamplingParams,
        prompt_token_ids: Sequence[int] = (),
    ) -> None:
        self._engine = engine
        self._sampling = sampling
        self.state = RollingHash(engine.card.vocab_size, engine.card.eos_token_ids)
        self._prompt = prompt_token_ids
        self._num_tokens = 0
        self._next_position = 0
        self._logprobs: TokenLogprobs | None = None

    @property
    def logprobs(self) -> TokenLogprobs | None:
        """A stand-in, from the hash."""
        return self._logprobs

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        """Take a pass's time, and the token from the hash."""
        await self._engine.work(self._num_tokens, len(token_ids))
        self._num_tokens += len(token_ids)
        if positions is None:
            self.state.extend(token_ids)
            self._next_position += len(token_ids)
        else:
            for token_id, position in zip(token_ids, positions, strict=True):
                self.state.extend((*self._prompt[self._next_position : position], token_id))
                self._next_position = position + 1
        if sample_position is None:
            return None
        token_id = self.state.next_token(sample_position, self._sampling)
        if self._sampling.logprobs is not None:
            after = copy(self.state)
            after.extend((token_id,))
            self._logprobs = after.logprobs(self._sampling.logprobs)
        return token_id

    def close(self) -> None:
        """Forget the tokens."""
        self._num_tokens = 0
