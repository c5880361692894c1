"""The ports through which a session reaches the outside: a cloud link and a local engine.

Both are async and speak domain values. gRPC and threads sit behind their real implementations;
emulated ones are timers on the running loop, so that one session serves two clocks (DESIGN 10).
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pd_core.generation import CloudEvent, Extend, Fingerprints, ServerInfo, Start, Stop
from pd_core.sampling_params import SamplingParams

__all__ = ["CloudLink", "CloudStream", "EngineCard", "LocalEngine", "LocalSequence"]


class CloudStream(Protocol):
    """One open stream to the cloud."""

    def events(self) -> AsyncGenerator[CloudEvent, None]:
        """Yield what the cloud sends, in order, until Finished or an error.

        Raises:
            PdError: the typed error with which the cloud, or the way to it, ended the stream.
        """
        ...

    async def send(self, message: Extend | Stop) -> None:
        """Send a message; one sent after the end is dropped without an error."""
        ...

    def cancel(self) -> None:
        """Break the stream off; the cloud frees everything. Safe to call at any time."""
        ...


class CloudLink(Protocol):
    """The way to one cloud."""

    async def info(self) -> ServerInfo:
        """Ask for the cloud's card.

        Raises:
            TransportError: it cannot be had.
        """
        ...

    async def open(self, start: Start) -> CloudStream:
        """Open a stream and send `start`; errors come from the stream's events."""
        ...

    async def close(self) -> None:
        """Close the link."""
        ...


@dataclass(frozen=True, slots=True)
class EngineCard:
    """What a local engine runs.

    Attributes:
        name: for people.
        fingerprints: of its model.
        sampler: "model", or "rolling-hash" for an emulation.
        vocab_size: token ids are below this.
        eos_token_ids: ids that end a sequence.
        max_context_tokens: prompt and response together.
        chunk_tokens: tokens of one prefill pass; a cancel waits for one pass at most.
        kv_bytes_per_token: KV cache bytes one token takes; 0 when nothing is really held.
    """

    name: str
    fingerprints: Fingerprints
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    max_context_tokens: int
    chunk_tokens: int
    sampler: str = "model"
    kv_bytes_per_token: int = 0


class LocalSequence(Protocol):
    """One sequence on the local engine, with its KV cache."""

    async def feed(self, token_ids: Sequence[int], sample_position: int | None) -> int | None:
        """Run the next tokens of the sequence through the model in one pass.

        Args:
            token_ids: the tokens that follow what was fed before.
            sample_position: response position to sample from the pass's last logits, or None.

        Returns:
            The sampled token, or None when none was asked for.

        Raises:
            EngineError: the pass failed.
        """
        ...

    def close(self) -> None:
        """Free the sequence; a running pass is let finish first."""
        ...


class LocalEngine(Protocol):
    """A model on the device."""

    @property
    def card(self) -> EngineCard:
        """What it runs."""
        ...

    def cached_tokens(self, prompt_token_ids: Sequence[int]) -> int:
        """How many of a prompt's first tokens a sequence opened now would hold already."""
        ...

    def open(self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()) -> LocalSequence:
        """Open a sequence that holds the first `cached_tokens` of the prompt already."""
        ...

    async def close(self) -> None:
        """Free the engine."""
        ...
