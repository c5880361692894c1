"""Reading and writing the tensors of Hugging Face directories: safetensors, sharded or not."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pd_core.errors import ModelError
from pd_core.host.atomic import replaced
from pd_core.store.json_file import read_json

__all__ = ["Checkpoint", "read_json", "write_tensors"]

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
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

    Raises:
        ModelError: there are none, or one is truncated or broken.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        names = self._file_names()
        self.files = tuple(directory / name for name in sorted(names))
        self._file_of: dict[str, Path] = {}
        self._shapes: dict[str, list[int]] = {}
        for file in self.files:
            with _opened(file) as opened:
                for name in opened.keys():  # noqa: SIM118  (not a mapping)
                    if name in self._file_of:
                        raise ModelError(f"tensor {name} is in two files of {directory}")
                    self._file_of[name] = file
                    self._shapes[name] = opened.get_slice(name).get_shape()
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
        raise ModelError(f"{self._directory} has no {_SINGLE} and no {_INDEX}")

    def num_layers(self) -> int:
        """Count the decoder layers that have tensors."""
        found = (_LAYER.match(name) for name in self._file_of)
        return len({int(match[1]) for match in found if match})

    def check_fits(self, tensors: Mapping[str, Tensor], *, tied_head: bool) -> None:
        """Compare names and shapes, which are in the files' headers; reads no weights.

        Args:
            tensors: the model's tensors by name; only their shapes matter.
            tied_head: an output layer may be stored although it is tied to the embedding.

        Raises:
            ModelError: a tensor is missing, unknown or of the wrong shape.
        """
        found = {n for n in self._file_of if not n.endswith(_DERIVED_SUFFIX)}
        surplus = {"lm_head.weight"} if tied_head else set()
        if missing := sorted(tensors.keys() - found):
            raise ModelError(f"the checkpoint lacks {_some(missing)}")
        if extra := sorted(found - tensors.keys() - surplus):
            raise ModelError(
                f"the checkpoint has tensors the model has no place for: {_some(extra)}"
            )
        for name in sorted(tensors):
            shape, wanted = self._shapes[name], list(tensors[name].shape)
            if shape != wanted:
                raise ModelError(f"tensor {name} has shape {shape}; the config asks for {wanted}")

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
        surplus = {"lm_head.weight"} & self._file_of.keys() if tied_head else set()
        for name, tensor in self.stored(surplus):
            embedding = next(t for _, t in self.stored({"model.embed_tokens.weight"}))
            if not torch.equal(tensor, embedding):
                raise ModelError(f"tie_word_embeddings is true, but {name} is not the embedding")
        for name, tensor in self.stored(tensors.keys()):
            if tensor.dtype not in _FLOATS:
                raise ModelError(f"tensor {name} has type {tensor.dtype}, which is not supported")
            yield name, tensor

    def stored(self, names: "set[str] | Any") -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) as stored, sorted by name, one at a time."""
        for file in self.files:
            if not file.exists():
                raise ModelError(f"{file} does not exist")
        for name in sorted(names):
            with _opened(self._file_of[name]) as opened:
                yield name, opened.get_tensor(name)


def _check_finite(name: str, tensor: Tensor) -> None:
    if not torch.isfinite(tensor).all():
        raise ModelError(f"tensor {name} holds NaN or infinite values")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _opened(file: Path) -> Any:
    """Open a safetensors file; the library checks header, offsets and length."""
    try:
        return safe_open(file, framework="pt", device="cpu")
    except FileNotFoundError as error:
        raise ModelError(f"{file} does not exist") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is truncated or not a safetensors file: {error}") from error
