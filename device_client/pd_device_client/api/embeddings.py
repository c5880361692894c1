"""Embeddings: refused, with what to use instead.

A model that was trained to say the next token has states from which a next token can be read. They
lie close together for nearly all texts, so a search over them finds little. Models for search are
trained on pairs of texts, which no model of a device here is.
"""

from starlette.requests import Request
from starlette.responses import Response

from pd_device_client.api.http.endpoints import Endpoints
from pd_device_client.api.http.errors import Refusal

__all__ = ["add_embeddings"]


def add_embeddings(endpoints: Endpoints) -> None:
    """Add the endpoint that says where embeddings are to be had."""

    @endpoints.add("POST", "/v1/embeddings")
    async def embeddings(_request: Request) -> Response:
        """Refuse: a model that chats makes no embeddings that a search could use."""
        raise Refusal(
            "this device makes no embeddings: its model is trained to continue text, not to "
            "compare texts, so a search by its states would find little; use a model made for it, "
            "such as nomic-embed-text by `llama-server --embeddings` or by Ollama, beside this",
            "model",
            code="embeddings_not_supported",
        )
