"""A local engine that says a given text, for tests of what becomes of a model's words."""

import asyncio
from collections.abc import Sequence

from pd_core.generation import Fingerprints, ModelCard, TokenLogprobs
from pd_core.sampling_params import SamplingParams
from pd_core.text.tokenizer import Tokenizer
from pd_device_client.contract.ports import LocalSequence


class SayingEngine:
    """Says the text, whatever is asked, and then ends.

    Args:
        tokenizer: of the model that it stands for.
        text: what it says.
        eos: the token that ends it.
        pass_s: seconds of every pass.
        tells: what it tells of every token; None: it tells nothing.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        text: str,
        eos: int,
        pass_s: float = 0.0005,
        tells: TokenLogprobs | None = None,
    ) -> None:
        self.token_ids = [*tokenizer.encode(text), eos]
        self.pass_s = pass_s
        self.tells = tells
        self._card = ModelCard(
            name="saying",
            engine="saying",
            fingerprints=Fingerprints(),
            vocab_size=tokenizer.vocab_size,
            eos_token_ids=(eos,),
            max_context_tokens=100_000,
            logprobs=tells is not None,
        )

    chunk_tokens = 4096

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def leaves_out(self) -> bool:
        return False

    def cached_tokens(self, prompt_token_ids: Sequence[int]) -> int:
        return 0

    def open(self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()) -> LocalSequence:
        return _Sequence(self)

    async def close(self) -> None:
        pass


class _Sequence:
    def __init__(self, engine: SayingEngine) -> None:
        self._engine = engine

    @property
    def logprobs(self) -> TokenLogprobs | None:
        return self._engine.tells

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        await asyncio.sleep(self._engine.pass_s)
        return None if sample_position is None else self._engine.token_ids[sample_position]

    def close(self) -> None:
        pass
