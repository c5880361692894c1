"""What a server says about itself."""

from pd_core.errors import ConfigError
from pd_core.generation import Limits, Load, ServerInfo
from pd_server.engine.contract import ModelCard

__all__ = ["make_limits", "server_card"]


def server_card(server_version: str, model: ModelCard, limits: Limits) -> ServerInfo:
    """Return the server's card without its load, which the caller fills in."""
    return ServerInfo(
        server_version=server_version,
        model_name=model.model_name,
        engine=model.engine,
        fingerprints=model.fingerprints,
        limits=limits,
        load=Load(),
        sampler=model.sampler,
        eos_token_ids=model.eos_token_ids,
    )


def make_limits(
    model: ModelCard,
    max_num_seqs: int,
    max_num_waiting: int,
    max_context_tokens: int | None,
    max_output_tokens: int | None,
) -> Limits:
    """Resolve the limits a server publishes; None means as much as the model allows.

    Raises:
        ConfigError: more context was asked for than the model has.
    """
    context = model.max_context_tokens if max_context_tokens is None else max_context_tokens
    if context > model.max_context_tokens:
        raise ConfigError(
            f"--max-context-tokens is {context}, but {model.model_name} has room for "
            f"{model.max_context_tokens}, by its own context or its KV cache; lower it, or raise "
            "--kv-cache-mib where that is the bound"
        )
    output = context if max_output_tokens is None else max_output_tokens
    return Limits(
        max_context_tokens=context,
        max_output_tokens=min(output, context),
        max_num_seqs=max_num_seqs,
        max_num_waiting=max_num_waiting,
        vocab_size=model.vocab_size,
    )
