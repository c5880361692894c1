"""A GGUF file that llama.cpp runs: its weights, and the KV memory of a few sequences.

This module imports no torch, so that a process can run llama.cpp alone.
"""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pd_core.errors import EngineError, ModelError
from pd_core.host.free_memory import available_bytes
from pd_device_client.engine.llama_cpp_library import Library, library

__all__ = ["LlamaCppModel"]

_MAGIC = b"GGUF"
_KV_BYTES = 2  # of a key's or value's element
_SPARE = 1.1  # passes, tables, Python
_MOST_TEXT = 128


class LlamaCppModel:
    """A model in memory; not thread-safe: one owner.

    Each slot holds one sequence and its keys and values, in 16 bits; slots do not see each other.

    Args:
        path: a GGUF file; of a split model the first.
        context_tokens: the room of each slot; None: as many tokens as the model was trained with,
            at most `most_tokens`.
        most_tokens: see `context_tokens`.
        num_slots: sequences at a time.
        pass_tokens: most tokens of one pass.
        num_threads: threads of a pass.
        progress: called with the bytes read so far and the file's size.
        available: returns the free memory in bytes.

    Attributes:
        vocab_size: logits of a position.
        weight_bytes: of all weights, as stored.
        context_tokens: the room of each slot.
        kv_bytes_per_token: keys and values of a token, about.
        description: architecture, size and type of the weights, in llama.cpp's words.

    Raises:
        ModelError: it cannot be loaded; the message says why.
        ConfigError: the library is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        context_tokens: int | None,
        most_tokens: int = 1 << 31,
        num_slots: int = 1,
        pass_tokens: int,
        num_threads: int,
        progress: Callable[[int, int], None] | None = None,
        available: Callable[[], int] = available_bytes,
    ) -> None:
        self._library = library()
        self._api = self._library.api
        self._context: Any = None
        self._batch: Any = None
        _check_memory(path, "its weights", _checked_size(path), available())
        self._model = _loaded(self._library, path, progress)
        try:
            self._check_kind(path)
            vocab = self._api.llama_model_get_vocab(self._model)
            self.vocab_size = int(self._api.llama_vocab_n_tokens(vocab))
            self.weight_bytes = int(self._api.llama_model_size(self._model))
            self.context_tokens = self._room(path, context_tokens, most_tokens)
            # llama.cpp ends the process where a pass is longer than the context.
            self._pass_tokens = min(pass_tokens, self.context_tokens)
            self.description = self._text(self._api.llama_model_desc)
            self.kv_bytes_per_token = self._kv_bytes_per_token()
            kv_bytes = self.kv_bytes_per_token * self.context_tokens * num_slots
            kv_words = f"{num_slots} x {self.context_tokens} tokens of context"
            _check_memory(path, kv_words, kv_bytes, available())
            self._context = self._new_context(path, num_slots, num_threads)
            self._memory = self._api.llama_get_memory(self._context)
            self._batch = self._api.llama_batch_init(self._pass_tokens, 0, 1)
        except BaseException:
            self.close()
            raise

    @property
    def can_go_back(self) -> bool:
        """Whether a sequence's last tokens can be taken away, so that a kept prefix is of use."""
        api, model = self._api, self._model
        return not (api.llama_model_is_recurrent(model) or api.llama_model_is_hybrid(model))

    def run(
        self, slot: int, start: int, token_ids: Sequence[int], *, wants_logits: bool
    ) -> NDArray[np.float32] | None:
        """Run tokens through the model, in passes of at most `pass_tokens`.

        Args:
            slot: the sequence.
            start: the position of the first token; the slot holds all before it.
            token_ids: the tokens.
            wants_logits: whether those of the last token are needed.

        Returns:
            (vocab_size,), a copy; None when not wanted.

        Raises:
            EngineError: a pass failed, or the slot has no room.
        """
        if start + len(token_ids) > self.context_tokens:
            raise EngineError(
                f"{start + len(token_ids)} tokens do not fit a slot of {self.context_tokens}"
            )
        for first in range(0, len(token_ids), self._pass_tokens):
            part = token_ids[first : first + self._pass_tokens]
            last = first + len(part) == len(token_ids)
            self._pass(slot, start + first, part, wants_logits and last)
        if not wants_logits:
            return None
        row = self._api.llama_get_logits_ith(self._context, -1)
        if not row:
            raise EngineError("llama.cpp computed no logits")
        return np.ctypeslib.as_array(row, shape=(self.vocab_size,)).copy()

    def _pass(self, slot: int, start: int, token_ids: Sequence[int], wants_logits: bool) -> None:
        batch = self._batch
        batch.n_tokens = len(token_ids)
        for i, token_id in enumerate(token_ids):
            batch.token[i] = token_id
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = slot
            batch.logits[i] = 0
        batch.logits[len(token_ids) - 1] = wants_logits
        self._library.forget_errors()
        failed = self._api.llama_decode(self._context, batch)
        if failed:
            raise EngineError(
                f"llama.cpp failed in a pass of {len(token_ids)} tokens at position {start} "
                f"(code {failed}){_because(self._library)}"
            )

    def clear(self, slot: int, start: int = 0) -> bool:
        """Take the tokens from position `start` on out of a slot; False if that is impossible."""
        return bool(self._api.llama_memory_seq_rm(self._memory, slot, start, -1))

    def state(self, slot: int) -> NDArray[np.uint8]:
        """Return a copy of a slot's keys and values.

        Raises:
            EngineError: it cannot be copied.
        """
        size = self._api.llama_state_seq_get_size(self._context, slot)
        state = np.empty(size, dtype=np.uint8)
        if self._api.llama_state_seq_get_data(self._context, _bytes(state), size, slot) != size:
            raise EngineError("llama.cpp did not give the whole of a sequence's state")
        return state

    def restore(self, slot: int, state: NDArray[np.uint8]) -> None:
        """Give a slot a copy of what another had.

        Raises:
            EngineError: it does not take it.
        """
        self.clear(slot)
        if not self._api.llama_state_seq_set_data(self._context, _bytes(state), state.size, slot):
            raise EngineError("llama.cpp did not take a sequence's kept state")

    def close(self) -> None:
        """Free everything; safe to call again."""
        if self._batch is not None:
            self._api.llama_batch_free(self._batch)
            self._batch = None
        if self._context is not None:
            self._api.llama_free(self._context)
            self._context = None
        if self._model is not None:
            self._api.llama_model_free(self._model)
            self._model = None

    def _check_kind(self, path: Path) -> None:
        api, model = self._api, self._model
        if api.llama_model_has_encoder(model) or not api.llama_model_has_decoder(model):
            raise ModelError(f"{path} has an encoder; only decoder-only models are run")
        if api.llama_model_is_diffusion(model):
            raise ModelError(f"{path} is a diffusion model, which makes no tokens one by one")

    def _room(self, path: Path, context_tokens: int | None, most_tokens: int) -> int:
        trained = int(self._api.llama_model_n_ctx_train(self._model))
        if context_tokens is None:
            return min(trained, most_tokens)
        if context_tokens > trained:
            raise ModelError(
                f"a context of {context_tokens} tokens is more than {path} was trained with, "
                f"{trained}; ask for at most that"
            )
        return context_tokens

    def _kv_bytes_per_token(self) -> int:
        api, model = self._api, self._model
        head = api.llama_model_n_embd(model) // max(api.llama_model_n_head(model), 1)
        architecture = self.metadata("general.architecture")
        lengths = (
            self.metadata(f"{architecture}.attention.{part}_length") for part in ("key", "value")
        )
        width = sum(int(length) if length.isdigit() else head for length in lengths)
        return int(api.llama_model_n_layer(model) * api.llama_model_n_head_kv(model)) * (
            width * _KV_BYTES
        )

    def metadata(self, key: str) -> str:
        """Return a value of the file's metadata as text; "" when it is not there."""
        return self._text(
            lambda model, text, size: self._api.llama_model_meta_val_str(
                model, key.encode(), text, size
            )
        )

    def _text(self, write: Callable[[Any, Any, int], int]) -> str:
        text = ctypes.create_string_buffer(_MOST_TEXT)
        there = write(self._model, text, _MOST_TEXT) > 0
        return text.value.decode(errors="replace") if there else ""

    def _new_context(self, path: Path, num_slots: int, num_threads: int) -> Any:
        params = self._api.llama_context_default_params()
        params.n_ctx = self.context_tokens * num_slots
        params.n_seq_max = num_slots
        params.n_batch = params.n_ubatch = self._pass_tokens
        params.n_outputs_max = num_slots  # only the last logits of a pass
        params.n_threads = params.n_threads_batch = num_threads
        params.no_perf = True
        params.swa_full = True  # otherwise a window's older keys are gone, and no way leads back
        self._library.forget_errors()
        context = self._api.llama_init_from_model(self._model, params)
        if not context:
            raise ModelError(
                f"there is no memory for {num_slots} x {self.context_tokens} tokens of context of "
                f"{path}{_because(self._library)}; close other programs, or use a smaller model"
            )
        return context


def _checked_size(path: Path) -> int:
    """Return a GGUF file's size; refuse what is none before llama.cpp sees it."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(_MAGIC))
        size = path.stat().st_size
    except FileNotFoundError:
        raise ModelError(f"there is no file {str(path)!r}; give a GGUF file") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}; give a GGUF file") from error
    if begin != _MAGIC:
        raise ModelError(f"{path} is not a GGUF file, which is what llama.cpp runs; give one")
    return size


def _check_memory(path: Path, what: str, num_bytes: int, there: int) -> None:
    if num_bytes * _SPARE > there:
        raise ModelError(
            f"{path.name} needs {-(-num_bytes >> 20)} MiB of memory for {what}, and {there >> 20} "
            "MiB are free; close other programs, ask for a shorter --context-tokens, or choose a "
            "smaller model"
        )


def _loaded(lib: Library, path: Path, progress: Callable[[int, int], None] | None) -> Any:
    api = lib.api
    params = api.llama_model_default_params()
    params.n_gpu_layers = 0
    size = path.stat().st_size

    def advance(share: float, _: object) -> bool:
        if progress is not None:
            progress(int(share * size), size)
        return True

    params.progress_callback = callback = api.llama_progress_callback(advance)
    lib.forget_errors()
    model = api.llama_model_load_from_file(str(path).encode(), params)
    del callback  # alive until here
    if not model:
        raise ModelError(
            f"llama.cpp cannot load {path}{_because(lib)}; the file may be truncated or of a kind "
            "that this version does not know: get it again, or update llama-cpp-python"
        )
    return model


def _because(lib: Library) -> str:
    return f": {lib.last_error}" if lib.last_error else ""


def _bytes(array: NDArray[np.uint8]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
