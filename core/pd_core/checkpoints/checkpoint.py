"""Reading and writing the tensors of Hugging Face directories: safetensors, sharded or not."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pd_core.errors import ModelError
from pd_core.files.atomic import replaced
from pd_core.store.json_file import read_json
from pd_core.store.mistaken_models import refuse_pointer, what_directory_is

__all__ = ["Checkpoint", "read_json", "write_tensors"]

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_FLOATS = ("F32", "F16", "BF16")  # in the words of the files' headers
# Names of what quantised checkpoints (GPTQ, AWQ, FP8, bitsandbytes, MLX, HQQ, AQLM) store beside
# a weight, or in its place.
_QUANTISED = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|biases|weight_scale(_inv)?|weight_packed|absmax|quant_map"
    r"|SCB|W_q|codebooks)\b"
)
# The largest models' have a few; each name in a header takes time and twenty times its memory.
_MOST_HEADER_BYTES = 8 << 20
_CHECKED_NUMBERS = 1 << 24  # checked at once, so that checking takes little memory
# Stored in old checkpoints; we compute it from the config.
_DERIVED_SUFFIX = "rotary_emb.inv_freq"
_LAYER = re.compile(r"model\.layers\.(\d+)\.")


def write_tensors(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write model.safetensors in one step, so that on a full disk an older one stays whole.

    Raises:
        ModelError: it cannot be written.
    """
    separate = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    try:
        with replaced(directory / _SINGLE) as part:
            mode = part.stat().st_mode
            save_file(separate, part, metadata={"format": "pt"})
            part.chmod(mode)  # the library makes it readable only by the owner
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{directory / _SINGLE} cannot be written: {error}") from error


class Checkpoint:
    """The safetensors files of one directory.

    Attributes:
        files: all files, sorted by name.
        has_embedding: the embedding is stored; a tied model may store its output layer instead.

    Raises:
        ModelError: there are none, or one is truncated or broken or cannot be mapped into memory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        names = self._file_names()
        self.files = tuple(directory / name for name in sorted(names))
        self._file_of: dict[str, Path] = {}
        self._shapes: dict[str, list[int]] = {}
        self._types: dict[str, str] = {}
        header_bytes = 0
        for file in self.files:
            header_bytes += _header_bytes(file)
            if header_bytes > _MOST_HEADER_BYTES:
                raise ModelError(
                    f"the headers of the weights' files have {header_bytes >> 20} MiB up to "
                    f"{file.name}, and no model's have {_MOST_HEADER_BYTES >> 20} MiB; get "
                    "it again from where it is from"
                )
            with _opened(file) as opened:
                for name in opened.keys():  # noqa: SIM118  (not a mapping)
                    if name in self._file_of:
                        raise ModelError(f"tensor {name} is in two files of {directory}")
                    self._file_of[name] = file
                    header = opened.get_slice(name)
                    self._shapes[name] = header.get_shape()
                    self._types[name] = header.get_dtype()
        self.has_embedding = _EMBEDDING in self._file_of
        self._size_bytes = sum(file.stat().st_size for file in self.files)

    def _file_names(self) -> set[str]:
        """Return the names of the safetensors files, from the index if there is one."""
        if (self._directory / _SINGLE).exists():
            return {_SINGLE}
        if (self._directory / _INDEX).exists():
            weight_map = read_json(self._directory / _INDEX).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise ModelError(f"{_INDEX} has no weight_map")
            for name in weight_map.values():
                if not isinstance(name, str) or Path(name).name != name:
                    raise ModelError(f"{_INDEX} names {name!r}, which is not a file beside it")
                # Files with other suffixes are not checked for links out of the directory.
                if not name.endswith(".safetensors"):
                    raise ModelError(f"{_INDEX} names {name!r}, which is no .safetensors file")
            return set(weight_map.values())
        pickles = [p.name for ext in ("bin", "pt", "pth") for p in self._directory.glob(f"*.{ext}")]
        if pickles:
            raise ModelError(
                f"{self._directory} has only pickle files ({sorted(pickles)[0]}), which can run "
                "code; convert them to safetensors"
            )
        if any(self._directory.glob("*.[gG][gG][uU][fF]")):
            raise ModelError(what_directory_is(self._directory))
        raise ModelError(f"{self._directory} has no {_SINGLE} and no {_INDEX}")

    def num_layers(self) -> int:
        """Count the decoder layers that have tensors."""
        found = (_LAYER.match(name) for name in self._file_of)
        return len({int(match[1]) for match in found if match})

    def check_fits(self, tensors: Mapping[str, Tensor], *, tied_head: bool) -> None:
        """Compare names and shapes, which are in the files' headers; reads no weights.

        Args:
            tensors: the model's tensors by name; only their shapes matter.
            tied_head: the output layer is the embedding; either may be stored, or both.

        Raises:
            ModelError: a tensor is missing, unknown, or of the wrong shape or type.
        """
        found = {n for n in self._file_of if not n.endswith(_DERIVED_SUFFIX)}
        if quantised := sorted(filter(_QUANTISED.search, found - tensors.keys())):
            raise ModelError(
                f"the weights are quantised (there is {_some(quantised)}), which is not supported; "
                "use the model they were made from, in float32, bfloat16 or float16"
            )
        if tied_head and _HEAD in found:
            found = found - {_HEAD} | {_EMBEDDING}
        if missing := sorted(tensors.keys() - found):
            raise ModelError(f"the checkpoint lacks {_some(missing)}")
        if extra := sorted(found - tensors.keys()):
            raise ModelError(
                f"the checkpoint has tensors the model has no place for: {_some(extra)}"
            )
        for name in sorted(tensors):
            place = self._place(name)
            shape, wanted = self._shapes[place], list(tensors[name].shape)
            if shape != wanted:
                raise ModelError(f"tensor {place} has shape {shape}; the config asks for {wanted}")
            if (dtype := self._types[place]) not in _FLOATS:
                raise ModelError(
                    f"tensor {place} has type {dtype}, which is not supported; supported are "
                    f"{', '.join(_FLOATS)}"
                )

    def load_into(
        self,
        tensors: Mapping[str, Tensor],
        *,
        tied_head: bool,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Copy every stored tensor into the model's.

        Args:
            tensors: the model's tensors by name; their dtype may differ from the file's.
            tied_head: the output layer is the embedding, so a stored one must be equal to it.
            progress: called after each tensor with the bytes read and the files' size; at the end
                both are equal.

        Raises:
            ModelError: a tensor is missing, unknown, of the wrong shape or type, or not finite.
        """
        read_bytes, size_bytes = 0, self._size_bytes
        for name, tensor in self._fitting(tensors, tied_head):
            place = tensors[name]
            place.copy_(tensor)
            _check_finite(name, place)
            read_bytes += tensor.nbytes
            if progress is not None:
                progress(min(read_bytes, size_bytes), size_bytes)
        if progress is not None:
            progress(size_bytes, size_bytes)  # the rest is headers

    def verify(self, tensors: Mapping[str, Tensor], *, tied_head: bool) -> set[torch.dtype]:
        """Check all that `load_into` checks, reading every value and keeping none.

        Args:
            tensors: the model's tensors by name; only their shapes matter.
            tied_head: as for `load_into`.

        Returns:
            The dtypes of the stored tensors.

        Raises:
            ModelError: as `load_into`.
        """
        dtypes = set()
        for name, tensor in self._fitting(tensors, tied_head):
            _check_finite(name, tensor)
            dtypes.add(tensor.dtype)
        return dtypes

    def _fitting(
        self, tensors: Mapping[str, Tensor], tied_head: bool
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the stored tensors, each checked against the model's."""
        self.check_fits(tensors, tied_head=tied_head)
        if tied_head and self._file_of.keys() >= {_EMBEDDING, _HEAD}:
            (_, embedding), (_, head) = self.stored((_EMBEDDING, _HEAD))
            if not torch.equal(embedding, head):
                raise ModelError(f"tie_word_embeddings is true, but {_HEAD} is not the embedding")
        yield from self.stored(tensors.keys())

    def stored(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) as stored, sorted by name, one at a time.

        The embedding of a tied model may be stored as its output layer alone.

        Raises:
            ModelError: a file is gone, or cannot be mapped into memory.
        """
        for file in self.files:
            if not file.exists():
                raise ModelError(f"{file} does not exist")
        for name in sorted(names):
            place = self._place(name)
            file = self._file_of[place]
            with _opened(file) as opened, _our_errors(file):
                tensor = opened.get_tensor(place)
            yield name, tensor

    def _place(self, name: str) -> str:
        """Return the name under which a tensor of the model is stored."""
        return _HEAD if name == _EMBEDDING and name not in self._file_of else name


def _check_finite(name: str, tensor: Tensor) -> None:
    for part in torch.split(tensor.reshape(-1), _CHECKED_NUMBERS):
        if not torch.isfinite(part).all():
            raise ModelError(f"tensor {name} holds NaN or infinite values")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _header_bytes(file: Path) -> int:
    """Return the length of a file's header, or 0 where the library will refuse the file."""
    with _our_errors(file), file.open("rb") as opened:
        begin = opened.read(100)
    refuse_pointer(file, begin)
    length = int.from_bytes(begin[:8], "little")
    return length if length < file.stat().st_size else 0


def _opened(file: Path) -> Any:
    """Open a safetensors file; the library checks header, offsets and length."""
    with _our_errors(file):
        return safe_open(file, framework="pt", device="cpu")


@contextmanager
def _our_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ModelError(f"{file} does not exist") from error
    except (SafetensorError, OSError, ValueError) as error:  # a name may hold a zero byte
        raise ModelError(f"{file} is truncated or not a safetensors file: {error}") from error
    except (RuntimeError, MemoryError) as error:  # torch's, where the system maps no more
        raise ModelError(
            f"{file} cannot be mapped into memory ({error}); free memory, or use a smaller model "
            "or one whose weights are split over several files"
        ) from error
