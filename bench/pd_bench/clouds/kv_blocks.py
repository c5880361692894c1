"""KV blocks of a plain and a SkipV1 model in a cache of equal size, as running servers report."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from pd_bench.clouds.result import KvBlocks
from pd_bench.harness.server_process import ServerOptions, serving
from pd_core.checkpoints.loading import save_model
from pd_core.checkpoints.random_tiny import EOS_TOKEN, fill_weights, random_tiny_tokenizer
from pd_core.errors import CloudUnavailable
from pd_core.identity.numerics import unchecked
from pd_core.models import CausalLM, ModelConfig

__all__ = ["count_kv_blocks", "kv_blocks_of", "write_models"]

_LAYERS = 32
_CACHE_MIB = 512
_METRIC = "pd_kv_blocks"


def write_models(folder: Path) -> tuple[Path, Path]:
    """Write two models of 32 layers, MHA and SkipV1Former; narrow, as only ratios matter.

    Heads have 32 elements, the minimum of vLLM's CPU kernels.
    """
    tokenizer = random_tiny_tokenizer()
    eos = tokenizer.token_id(EOS_TOKEN)
    assert eos is not None, "the built-in tokenizer has an end of sequence"
    plain = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=64,
        num_layers=_LAYERS,
        num_heads=2,
        num_kv_heads=2,
        head_dim=32,
        max_context_tokens=512,
        tie_word_embeddings=True,
    )
    for name, config in (("mha", plain), ("skip-v1", replace(plain, skip_v1=True))):
        model = CausalLM(config, unchecked("kv-blocks"))
        fill_weights(model, tokenizer)
        save_model(folder / name, model, tokenizer, eos_token_ids=(eos,))
    return folder / "mha", folder / "skip-v1"


async def count_kv_blocks(options: ServerOptions, models: tuple[Path, Path]) -> KvBlocks:
    """Start a server with each model in turn, with caches of equal size, and count their blocks.

    Args:
        options: the servers' other options.
        models: from `write_models`.

    Raises:
        PdError: a server did not start, or does not report its number of blocks.
    """
    blocks = []
    for model in models:
        own = replace(options, model=str(model), kv_cache_mib=_CACHE_MIB)
        async with serving(own) as server:
            blocks.append(await _read_kv_blocks(server.http_address))
    plain, skip_v1 = blocks
    return KvBlocks(
        cache_bytes=_CACHE_MIB * 2**20,
        layers=_LAYERS,
        plain=plain,
        skip_v1=skip_v1,
        ratio=skip_v1 / plain,
        by_formula=float(Fraction(4 * _LAYERS, 3 * _LAYERS + 1)),
    )


async def _read_kv_blocks(http_address: str) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            answer = await client.get(f"http://{http_address}/metrics", timeout=30)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise CloudUnavailable(f"the server's metrics cannot be read ({error})") from error
    return kv_blocks_of(answer.text)


def kv_blocks_of(metrics: str) -> int:
    """Return pd_kv_blocks from the text of /metrics.

    Raises:
        CloudUnavailable: the server does not report it.
    """
    for family in text_string_to_metric_families(metrics):
        if family.name == _METRIC and family.samples and family.samples[0].value > 0:
            return int(family.samples[0].value)
    raise CloudUnavailable(f"the server does not say how many KV blocks it has ({_METRIC})")
