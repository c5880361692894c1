"""What rounding costs: models on the same text, against the first of them.

Legend: T tokens, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_core.checkpoints.any_model import read_model_files
from pd_core.checkpoints.model_files import ModelFiles
from pd_core.errors import ConfigError
from pd_core.identity.numerics import unchecked
from pd_core.integer.integer_lm import IntegerLM
from pd_core.models.causal_lm import CausalLM
from pd_core.models.kv_cache import Segment
from pd_core.models.linear import can_pack

__all__ = ["Candidate", "Quality", "compare", "text_ids"]

_WINDOW = 512


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to look at.

    Attributes:
        path: a Hugging Face directory or a GGUF file.
        numerics: "float32" or "integer".
    """

    path: Path
    numerics: str


@dataclass(frozen=True, slots=True)
class Quality:
    """How a model did.

    Attributes:
        model: the path's last part.
        numerics: as in `Candidate`.
        stored_bytes: of the weights' files.
        loss: nats per token.
        agreement: share of positions where its likeliest token is the first model's.
        tokens: predicted tokens.
    """

    model: str
    numerics: str
    stored_bytes: int
    loss: float
    agreement: float
    tokens: int


def text_ids(path: Path, text: str, max_tokens: int) -> Tensor:
    """Return a text's ids in whole windows, (n, 512 or the model's context), by its tokenizer.

    Raises:
        ConfigError: the text is shorter than a window.
        ModelError: the model cannot be read.
    """
    files = read_model_files(path)
    window = min(_WINDOW, files.config.max_context_tokens)
    found = files.tokenizer.encode(text)[:max_tokens]
    count = len(found) // window
    if not count:
        raise ConfigError(
            f"the text has {len(found)} tokens, fewer than the {window} of a sequence; give more"
        )
    return torch.tensor(found[: count * window]).view(count, window)


def compare(
    candidates: Sequence[Candidate],
    ids: Tensor,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Quality]:
    """Yield each model's quality on ids (n, window); the first is what the others are held to.

    Args:
        progress: called after each window of each model with how many are done, and how many
            there are.

    Raises:
        ConfigError: a model has another tokenizer than the first.
        ModelError: a model cannot be read.
    """
    wanted: list[Tensor] = []
    tokenizer = None
    for number, candidate in enumerate(candidates):
        files = read_model_files(candidate.path)
        ours = files.tokenizer.decode(ids[0].tolist())
        if tokenizer is not None and ours != tokenizer:
            raise ConfigError(f"{files.name} has another tokenizer than the first model")
        tokenizer = ours
        model = _opened(files, candidate.numerics)
        loss, same = 0.0, 0
        for i, window in enumerate(ids):
            logits = _logits(model, window)
            loss += float(F.cross_entropy(logits, window[1:], reduction="sum"))
            likeliest = logits.argmax(-1)
            if number == 0:
                wanted.append(likeliest)
            same += int((likeliest == wanted[i]).sum())
            if progress is not None:
                progress(number * len(ids) + i + 1, len(candidates) * len(ids))
        tokens = ids.numel() - len(ids)
        stored = sum(file.stat().st_size for file in files.checkpoint.files)
        yield Quality(files.name, candidate.numerics, stored, loss / tokens, same / tokens, tokens)


def _opened(files: ModelFiles, numerics: str) -> CausalLM | IntegerLM:
    tied_head = files.config.tie_word_embeddings
    if numerics == "integer":
        take, rounded = files.checkpoint.taker(files.shapes, tied_head=tied_head)
        return IntegerLM(files.config, take, device=torch.device("cpu"), rounded=rounded)
    model = CausalLM(files.config, unchecked("quality", packed=can_pack()))
    files.checkpoint.load_into(model.tensors(), tied_head=tied_head)
    return model


@torch.inference_mode()
def _logits(model: CausalLM | IntegerLM, window: Tensor) -> Tensor:
    """Return the predictions (T - 1, V) of a window (T,)."""
    cache = model.make_cache(len(window))
    hidden = model.forward(window, [Segment(cache, 0, len(window))])
    return model.logits(hidden[:-1])
