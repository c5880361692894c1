"""How many blocks the same bytes of KV cache hold, plain against SkipV1, at 32 layers."""

from fractions import Fraction
from pathlib import Path
from typing import Any

from pd_core.models import ModelConfig
from tests.vllm.checkpoints import write_checkpoint
from tests.vllm.engines import vllm_engine

SHAPE: dict[str, Any] = {
    "num_layers": 32,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_heads": 2,
    "num_kv_heads": 2,
}


def _blocks(directory: Path, **changes: Any) -> tuple[int, ModelConfig]:
    config = write_checkpoint(directory, **(SHAPE | changes))
    with vllm_engine(directory, kv_cache_mib=256, max_context_tokens=512) as engine:
        assert engine.backend.block_tokens == 32
        return engine.backend.num_blocks, config


def test_the_same_bytes_hold_more_blocks(tmp_path: Path) -> None:
    plain, _ = _blocks(tmp_path / "plain")
    skip, skip_config = _blocks(tmp_path / "skip", skip_v1=True)
    yoco, yoco_config = _blocks(tmp_path / "yoco", skip_v1=True, skip_v1_k_source=15)
    assert skip / plain >= 1.30
    assert yoco / plain >= 1.95
    for blocks, config in ((skip, skip_config), (yoco, yoco_config)):
        # To a block: what the formula of the papers says.
        assert blocks == Fraction(plain) // (1 - config.kv_saving())


def test_so_they_do_where_two_of_three_heads_have_own_values(tmp_path: Path) -> None:
    three = {"hidden_size": 96, "num_heads": 3, "num_kv_heads": 3}
    plain, _ = _blocks(tmp_path / "plain", **three)
    skip, config = _blocks(tmp_path / "skip", skip_v1=True, skip_v1_own=2, **three)
    assert skip > plain
    unrounded = Fraction(256 << 20, config.plain_kv_elements() * 32 * 4)  # blocks of 32 tokens
    assert plain == int(unrounded)
    assert skip == unrounded // (1 - config.kv_saving())
