"""From a GGUF file to a local engine that runs it."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import version

from pd_core.errors import ModelError
from pd_core.host.cpu import num_cores
from pd_device_client.engine.gguf_text import GgufText, gguf_path, read_gguf_text
from pd_device_client.engine.llama_cpp_engine import LlamaCppEngine
from pd_device_client.engine.llama_cpp_library import library
from pd_device_client.engine.llama_cpp_model import LlamaCppModel

__all__ = ["GgufServed", "load_llama_cpp"]

_CHUNK_TOKENS = 128
_CONTEXT_TOKENS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufServed(GgufText):
    """A GGUF file's model for users: a `ServedModel` with llama.cpp's limits."""

    num_token_ids: int
    max_context_tokens: int


def load_llama_cpp(
    spec: str,
    *,
    context_tokens: int | None = None,
    num_slots: int = 1,
    num_threads: int | None = None,
    kept_kv_bytes: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[LlamaCppEngine, list[object]]:
    """Load a GGUF file into llama.cpp.

    Args:
        spec: the file, or a folder with one.
        context_tokens: room of a sequence; None: the model's, at most 8,192.
        num_slots: sequences at a time.
        num_threads: of a pass; None: as many as there are cores.
        kept_kv_bytes: limit of what is kept for conversations' next turns.
        progress: called with the bytes read so far and the file's size.

    Returns:
        The engine, and all that its speed depends on besides the processor.

    Raises:
        ModelError: it cannot be loaded; the message says why.
        ConfigError: llama-cpp-python is not installed.
    """
    library()  # before anything else is told about the file
    path = gguf_path(spec)
    threads = num_threads or num_cores()
    text = read_gguf_text(path)
    model = LlamaCppModel(
        path,
        context_tokens=context_tokens,
        most_tokens=_CONTEXT_TOKENS,
        num_slots=num_slots,
        pass_tokens=_CHUNK_TOKENS,
        num_threads=threads,
        progress=progress,
    )
    num_ids = text.tokenizer.vocab_size
    if num_ids > model.vocab_size:
        model.close()
        raise ModelError(
            f"the tokenizer has {num_ids} ids, but the model in {path} only {model.vocab_size}; "
            "they do not belong together"
        )
    engine = LlamaCppEngine(
        GgufServed(
            **{each.name: getattr(text, each.name) for each in fields(text)},
            num_token_ids=num_ids,
            max_context_tokens=model.context_tokens,
        ),
        model,
        num_slots=num_slots,
        chunk_tokens=_CHUNK_TOKENS,
        kept_kv_bytes=kept_kv_bytes,
    )
    about = [version("llama-cpp-python"), threads, model.description, path.stat().st_size]
    return engine, about
