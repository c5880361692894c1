"""A local engine around another, for tests that slow it down, make it fail or count its passes."""

from collections.abc import Sequence

from pd_core.generation import ModelCard
from pd_device_client.contract.ports import LocalEngine

__all__ = ["WrappedEngine"]


class WrappedEngine:
    """All of a `LocalEngine` but `open`, as the engine inside does it; nothing counts as cached."""

    def __init__(self, engine: LocalEngine) -> None:
        self.inner = engine

    @property
    def card(self) -> ModelCard:
        return self.inner.card

    @property
    def chunk_tokens(self) -> int:
        return self.inner.chunk_tokens

    @property
    def leaves_out(self) -> bool:
        return self.inner.leaves_out

    def cached_tokens(self, prompt_token_ids: Sequence[int]) -> int:
        return 0

    async def close(self) -> None:
        await self.inner.close()
