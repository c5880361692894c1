"""What a server says about itself."""

from dataclasses import replace

from pd_core.errors import ConfigError
from pd_core.generation import Limits, Load, ModelCard, ServerInfo

__all__ = ["server_card"]


def server_card(
    server_version: str,
    model: ModelCard,
    max_num_seqs: int,
    max_num_waiting: int,
    max_context_tokens: int | None,
    max_output_tokens: int | None,
) -> ServerInfo:
    """Return the server's card without its load, which the caller fills in.

    A limit of None means as much as the model allows.

    Raises:
        ConfigError: more context was asked for than the model has.
    """
    context = model.max_context_tokens if max_context_tokens is None else max_context_tokens
    if context > model.max_context_tokens:
        raise ConfigError(
            f"--max-context-tokens is {context}, but {model.name} has room for "
            f"{model.max_context_tokens}, by its own context or its KV cache; lower it, or raise "
            "--kv-cache-mib where that is the bound"
        )
    output = context if max_output_tokens is None else max_output_tokens
    limits = Limits(min(output, context), max_num_seqs, max_num_waiting)
    return ServerInfo(server_version, replace(model, max_context_tokens=context), limits, Load())
