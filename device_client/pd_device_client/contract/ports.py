"""The ports of a session: a cloud link and a local engine.

Both are async and take domain values. The real implementations hide gRPC and threads; emulated ones
are timers on the running loop, so the same session runs on a real or a virtual clock (DESIGN 10).
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol, runtime_checkable

from pd_core.generation import (
    CloudEvent,
    Extend,
    ModelCard,
    ServerInfo,
    Start,
    Stop,
    TokenLogprobs,
)
from pd_core.sampling_params import SamplingParams
from pd_core.text.tokenizer import Tokenizer

__all__ = [
    "CloudLink",
    "CloudStream",
    "LocalEngine",
    "LocalSequence",
    "NeedsModel",
    "PromptReader",
]


class CloudStream(Protocol):
    """One open stream to the cloud."""

    def events(self) -> AsyncGenerator[CloudEvent, None]:
        """Yield what the cloud sends, in order, until Finished or an error.

        Raises:
            PdError: the cloud, or the link to it, ended the stream with this error.
        """
        ...

    async def send(self, message: Extend | Stop) -> None:
        """Send a message; after the stream's end it is dropped without an error."""
        ...

    def cancel(self) -> None:
        """Cancel the stream; the cloud frees everything. Safe to call at any time."""
        ...


class CloudLink(Protocol):
    """The link to one cloud."""

    async def info(self) -> ServerInfo:
        """Ask for the cloud's card.

        Raises:
            TransportError: the cloud did not send it.
        """
        ...

    async def open(self, start: Start) -> CloudStream:
        """Open a stream and send `start`; errors come from the stream's events."""
        ...

    async def close(self) -> None:
        """Close the link."""
        ...


@runtime_checkable
class NeedsModel(Protocol):
    """A link to a cloud that knows nothing of this project: it compares and converts here."""

    def use_model(self, card: ModelCard, tokenizer: Tokenizer) -> None:
        """Hear what this device runs; call it before the first `info`."""
        ...


class LocalSequence(Protocol):
    """One sequence on the local engine, with its KV cache."""

    @property
    def logprobs(self) -> TokenLogprobs | None:
        """How likely the token was that the last `feed` sampled; None where sampling asks not."""
        ...

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        """Run the next tokens of the sequence through the model in one pass.

        Args:
            token_ids: the tokens that follow those fed before.
            sample_position: response position to sample from the pass's last logits, or None.
            positions: of these tokens, rising, where some of the prompt that the sequence was
                opened with is left out; None: they follow the last one fed. Only for an engine
                that `leaves_out`.

        Returns:
            The sampled token; None without a sample_position.

        Raises:
            EngineError: the pass failed.
        """
        ...

    def close(self) -> None:
        """Free the sequence, after the running pass has finished."""
        ...


@runtime_checkable
class PromptReader(Protocol):
    """An engine that can also say how likely each token of a prompt was."""

    async def prompt_logprobs(self, token_ids: Sequence[int], count: int) -> list[TokenLogprobs]:
        """Return what the model says of all tokens but the first, which follows nothing.

        Args:
            token_ids: a prompt that fits the context.
            count: how many of the most likely ids to name at each position.

        Raises:
            EngineError: a pass failed.
        """
        ...


class LocalEngine(Protocol):
    """A model on the device."""

    @property
    def card(self) -> ModelCard:
        """What it runs."""
        ...

    @property
    def chunk_tokens(self) -> int:
        """Tokens of one prefill pass; a cancel waits for at most one pass."""
        ...

    @property
    def leaves_out(self) -> bool:
        """Whether its sequences can leave out positions of a prompt."""
        ...

    def cached_tokens(self, prompt_token_ids: Sequence[int]) -> int:
        """Number of the prompt's first tokens that a sequence opened now would have cached."""
        ...

    def open(self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()) -> LocalSequence:
        """Open a sequence that already holds the prompt's cached tokens."""
        ...

    async def close(self) -> None:
        """Free the engine."""
        ...
