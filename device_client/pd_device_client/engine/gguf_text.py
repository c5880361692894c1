"""The text side of a GGUF file's model: tokenizer, template, special tokens, and what it is.

All are read from the file, if we could run it too: then its weights are compared with the cloud's.
llama.cpp knows more kinds; the text of those is that of the Hugging Face files beside the file.
"""

from dataclasses import dataclass, field
from pathlib import Path

from pd_core.checkpoints.any_model import read_model_files
from pd_core.checkpoints.loading import read_fingerprints
from pd_core.checkpoints.sampling_defaults import SamplingDefaults
from pd_core.checkpoints.tokenizer_config import TokenizerConfig
from pd_core.errors import ModelError
from pd_core.generation import Fingerprints
from pd_core.identity.fingerprint import numerics_id, text_digest
from pd_core.store.gguf_paths import gguf_of
from pd_core.store.json_file import read_json
from pd_core.store.model_names import RANDOM_TINY, model_path
from pd_core.text.chat_template import ChatTemplate
from pd_core.text.tokenizer import Tokenizer

__all__ = ["GgufText", "gguf_path", "read_gguf_text"]

_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class GgufText:
    """What is known of a model besides what llama.cpp runs."""

    name: str
    tokenizer: Tokenizer
    fingerprints: Fingerprints
    eos_token_ids: tuple[int, ...]
    chat_template: ChatTemplate | None = None
    sampling_defaults: SamplingDefaults = field(default_factory=SamplingDefaults)


def gguf_path(spec: str) -> Path:
    """Return the GGUF file of a model, by name or by path.

    Raises:
        ModelError: there is none.
    """
    path = None if spec == RANDOM_TINY else gguf_of(model_path(spec))
    if path is None:
        raise ModelError(
            f"the engine llama-cpp runs GGUF files, and {spec!r} is none; give --model FILE.gguf"
        )
    return path


def read_gguf_text(path: Path) -> GgufText:
    """Read what belongs to a GGUF file.

    Raises:
        ModelError: it is missing or broken.
    """
    try:
        files = read_model_files(path)
    except ModelError:
        if not (path.parent / _TOKENIZER).exists():
            raise
        return _from_beside(path)
    return GgufText(
        name=files.name,
        tokenizer=files.tokenizer,
        fingerprints=read_fingerprints(files, _numerics_id()),
        eos_token_ids=files.eos_token_ids,
        chat_template=files.chat_template,
        sampling_defaults=files.sampling_defaults,
    )


def _from_beside(path: Path) -> GgufText:
    """Read the Hugging Face files of its folder; nothing is then known of the weights."""
    folder = path.parent
    tokenizer = Tokenizer.from_file(folder / _TOKENIZER)
    settings = TokenizerConfig.from_directory(folder)
    config = folder / "config.json"
    ids = read_json(config).get("eos_token_id") if config.exists() else None
    ends = ids if isinstance(ids, list) else [ids]
    own = tokenizer.token_id(settings.special_tokens.get("eos_token", ""))
    return GgufText(
        name=path.stem,
        tokenizer=tokenizer,
        fingerprints=Fingerprints(
            tokenizer=tokenizer.digest,
            chat_template=text_digest(settings.chat_template),
            numerics_id=_numerics_id(),
        ),
        eos_token_ids=tuple(dict.fromkeys(i for i in [*ends, own] if isinstance(i, int))),
        chat_template=settings.template(),
        sampling_defaults=SamplingDefaults.from_directory(folder),
    )


def _numerics_id() -> str:
    return numerics_id("gguf", "llama-cpp")  # equal to no other
