"""Reports what a checkpoint is and costs, or why it is refused, without building the model."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from pd_core.checkpoints.any_model import read_model_files
from pd_core.checkpoints.loading import DTYPES
from pd_core.checkpoints.model_files import ModelFiles
from pd_core.errors import ModelError
from pd_core.models.config import ModelConfig
from pd_core.models.families import FAMILIES
from pd_core.models.kv_cache import KEY_BLOCK, KVCache
from pd_core.store.model_names import model_path

__all__ = ["ModelReport", "inspect_model"]


@dataclass(frozen=True, slots=True)
class ModelReport:
    """Facts about a checkpoint that can be served.

    Attributes:
        name: the directory's or GGUF file's name.
        architecture: as in config.json.
        config: the shape.
        num_parameters: number of weights; tied ones count once.
        stored_dtypes: types of the tensors in the files, sorted by name.
        stored_bytes: size of the weights' files.
        kv_dtype: dtype of the KV cache for the following sizes.
        kv_bytes_per_token: bytes that a cache of one block allocates, divided by its tokens.
        kv_bytes_per_token_by_formula: a plain model's of this shape, less the papers' saving.
        kv_bytes_per_token_plain: a plain model's of this shape.
        kv_block_tokens: tokens of the blocks in which a cache is allocated.
        num_tokenizer_ids: ids the tokenizer has; further rows of the embedding are masked.
        eos_token_ids: ids that end a sequence.
        prefix_ids: ids that the tokenizer puts before a plain text.
        has_chat_template: whether it can turn messages into prompts.
    """

    name: str
    architecture: str
    config: ModelConfig
    num_parameters: int
    stored_dtypes: tuple[str, ...]
    stored_bytes: int
    kv_dtype: str
    kv_bytes_per_token: int
    kv_bytes_per_token_by_formula: Fraction
    kv_bytes_per_token_plain: int
    kv_block_tokens: int
    num_tokenizer_ids: int
    eos_token_ids: tuple[int, ...]
    prefix_ids: tuple[int, ...]
    has_chat_template: bool


def inspect_model(
    directory: Path | str, *, kv_dtype: str = "float32", files: ModelFiles | None = None
) -> ModelReport:
    """Read every file of a model, the weights tensor by tensor, and report.

    Whatever load_model would refuse is refused here with the same message; only one tensor is in
    memory at a time.

    Args:
        directory: the checkpoint or GGUF file, or the shipped model's name.
        kv_dtype: dtype of the KV cache: "float32", "bfloat16" or "float16".
        files: what `check_memory` read of it; None: it is read here.

    Raises:
        ModelError: it cannot be served; the message says why.
    """
    if kv_dtype not in DTYPES:
        raise ModelError(f"unknown dtype {kv_dtype!r}; known: {', '.join(DTYPES)}")
    files = files or read_model_files(model_path(str(directory)))
    config = files.config
    shapes = files.shapes
    types = files.checkpoint.verify(shapes, tied_head=config.tie_word_embeddings)
    family, dtype = FAMILIES[config.family], DTYPES[kv_dtype]
    cache = KVCache(
        config.layer_heads(), config.head_dim, 1, dtype=dtype, device=torch.device("cpu")
    )
    plain = config.plain_kv_elements() * dtype.itemsize
    return ModelReport(
        name=files.name,
        architecture=family.skip_architecture if config.skip_v1 else family.architecture,
        config=config,
        num_parameters=sum(t.numel() for t in shapes.values()),
        stored_dtypes=tuple(sorted(types)),
        stored_bytes=sum(f.stat().st_size for f in files.checkpoint.files),
        kv_dtype=kv_dtype,
        kv_bytes_per_token=cache.allocated_bytes // cache.capacity_tokens,
        kv_bytes_per_token_by_formula=plain * (1 - config.kv_saving()),
        kv_bytes_per_token_plain=plain,
        kv_block_tokens=KEY_BLOCK,
        num_tokenizer_ids=files.tokenizer.vocab_size,
        eos_token_ids=files.eos_token_ids,
        prefix_ids=files.tokenizer.prefix_ids,
        has_chat_template=files.chat_template is not None,
    )
