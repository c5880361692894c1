"""Which of a GGUF file's tensors is which of ours, and in what order its rows are."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["our_rows", "ours"]

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_THEIRS = re.compile(r"blk\.(0|[1-9][0-9]{0,5})\.([a-z_]+)\.(weight|bias)")


def ours(name: str) -> str:
    """Return Hugging Face's name of a file's tensor; what we have no place for keeps its own."""
    if name in _TOP:
        return _TOP[name]
    found = _THEIRS.fullmatch(name)
    if found is None or found[2] not in _IN_LAYER:
        return name
    return f"model.layers.{found[1]}.{_IN_LAYER[found[2]]}.{found[3]}"


def our_rows(rows: "NDArray[np.uint8]", heads: int) -> "NDArray[np.uint8]":
    """Return the rows of a Llama's queries or keys in the order of Hugging Face's layout.

    llama.cpp rotates neighbouring numbers of a Llama's head and we, as `transformers`, the first
    half with the second, so its converter interleaves the rows of each head. A row is not changed.

    Args:
        rows: (heads * D, bytes of a row); of a bias, a row is one number.
        heads: query heads or KV heads.
    """
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)
