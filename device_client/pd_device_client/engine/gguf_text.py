"""The text side of a GGUF file's model: tokenizer, template and special tokens.

For now they are read from the Hugging Face files beside the GGUF file, not from the file itself.
"""

from dataclasses import dataclass, field
from pathlib import Path

from pd_core.checkpoints.sampling_defaults import SamplingDefaults
from pd_core.checkpoints.tokenizer_config import TokenizerConfig
from pd_core.errors import ModelError
from pd_core.generation import Fingerprints
from pd_core.identity.fingerprint import numerics_id, text_digest
from pd_core.store.json_file import read_json
from pd_core.text.chat_template import ChatTemplate
from pd_core.text.tokenizer import Tokenizer

__all__ = ["GgufText", "gguf_path", "read_gguf_text"]

_SUFFIX = ".gguf"


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
    """Return the GGUF file that a path names: itself, or the only one of a folder.

    Raises:
        ModelError: it names none.
    """
    path = Path(spec).expanduser()
    try:
        files = sorted(path.glob(f"*{_SUFFIX}")) if path.is_dir() else [path]
        is_file = len(files) == 1 and files[0].is_file()
    except (OSError, ValueError) as error:
        raise ModelError(f"{spec!r} cannot be looked at: {error}; give another path") from error
    if is_file:
        return files[0]
    there = f"{spec!r} holds {len(files)} of them" if path.is_dir() else f"{spec!r} is none"
    raise ModelError(f"the engine llama-cpp runs GGUF files, and {there}; give --model FILE.gguf")


def read_gguf_text(path: Path) -> GgufText:
    """Read what belongs to a GGUF file.

    Raises:
        ModelError: it is missing or broken.
    """
    folder = path.parent
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
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
            numerics_id=numerics_id("gguf", "llama-cpp"),
        ),
        eos_token_ids=tuple(dict.fromkeys(i for i in [*ends, own] if isinstance(i, int))),
        chat_template=settings.template(),
        sampling_defaults=SamplingDefaults.from_directory(folder),
    )
