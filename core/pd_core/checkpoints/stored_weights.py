"""The weights of a checkpoint by name, whatever file they are in: checked, read, copied."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pd_core.errors import ModelError
from pd_core.identity.fingerprint import WeightsDigest
from pd_core.integer.weights import EMBEDDING, HEAD, IntegerWeight, round_parts

__all__ = ["StoredWeights", "joined"]

# Names of what quantised checkpoints (GPTQ, AWQ, FP8, bitsandbytes, MLX, HQQ, AQLM) store beside
# a weight, or in its place.
_QUANTISED = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|biases|weight_scale(_inv)?|weight_packed|absmax|quant_map"
    r"|SCB|W_q|codebooks)\b"
)
_CHECKED_NUMBERS = 1 << 24  # checked at once, so that checking takes little memory
# Stored in old checkpoints; we compute it from the config.
_DERIVED_SUFFIX = "rotary_emb.inv_freq"
_LAYER = re.compile(r"model\.layers\.(\d+)\.")


class StoredWeights(ABC):
    """Stored tensors by Hugging Face's names, whose shapes are known and whose values are not yet.

    Args:
        files: all files, sorted by name.
        shapes: the shape of every stored tensor.
        types: the type of every stored tensor, in the words of the files.
        supported: the types that can be read.

    Attributes:
        files: all files, sorted by name.
        has_embedding: the embedding is stored; a tied model may store its output layer instead.
    """

    def __init__(
        self,
        files: tuple[Path, ...],
        shapes: Mapping[str, list[int]],
        types: Mapping[str, str],
        supported: tuple[str, ...],
    ) -> None:
        self.files = files
        self._shapes = shapes
        self._types = types
        self._supported = supported
        self.has_embedding = EMBEDDING in shapes
        self._size_bytes = sum(file.stat().st_size for file in files)

    @property
    def shapes(self) -> Mapping[str, list[int]]:
        """The shape of every stored tensor."""
        return self._shapes

    @property
    def types(self) -> Mapping[str, str]:
        """The type of every stored tensor, in the words of the files."""
        return self._types

    def packing(self) -> dict[str, Any]:
        """Return which layers are stored as integers and how, as JSON values; empty if none is.

        The same floats stored as floats compute other bits in integer numerics.
        """
        return {}

    def whole(self, place: str) -> Tensor:
        """Return a tensor by the name it is stored under, as stored.

        Raises:
            ModelError: its file is gone, or cannot be mapped into memory.
        """
        return self._whole(place)

    def integers(self, name: str, digest: WeightsDigest | None = None) -> IntegerWeight:
        """Return a linear layer's weight as integers, as stored or else rounded to 8 bits.

        Args:
            name: the tensor's.
            digest: is given the floats that are stored.

        Returns:
            Not padded, without bias; `IntegerLM` takes such as `rounded`.

        Raises:
            ModelError: it is not finite, or its file is gone.
        """
        return self._rounded(name, digest)

    def bits(self, place: str) -> int:
        """Return the bits of what `integers` returns for a tensor, by what the headers say."""
        return 8

    def _rounded(self, name: str, digest: WeightsDigest | None = None) -> IntegerWeight:
        """Round a tensor's floats to 8 bits by rows, of which a part is in memory at a time."""
        place = self._place(name)
        whole = round_parts(self._digested(name, place, digest), *self._shapes[place])
        if not torch.isfinite(whole.scales).all():
            raise _not_finite(name)
        return whole

    def parts(self, place: str) -> Iterator[Tensor]:
        """Yield a tensor as `whole` returns it, some consecutive rows at a time.

        Raises:
            ModelError: as for `whole`.
        """
        return self._parts(place)

    def _whole(self, place: str) -> Tensor:
        return joined(self._parts(place), self._shapes[place])

    @abstractmethod
    def _parts(self, place: str) -> Iterator[Tensor]:
        """Yield a tensor in parts of consecutive rows, since the whole may take much memory."""

    def _digested(self, name: str, place: str, digest: WeightsDigest | None) -> Iterator[Tensor]:
        """Yield a tensor's parts, which are digested on the way."""
        for part in self._parts(place):
            if digest is not None:
                digest.add(name, self._shapes[place], part)
            yield part

    @abstractmethod
    def stored_bytes(self, place: str) -> int:
        """Return how many bytes of the file a tensor takes."""

    def _type_name(self, place: str, tensor: Tensor) -> str:
        """Return the name of a stored tensor's type; `tensor` is some of it, as read."""
        return str(tensor.dtype).removeprefix("torch.")

    def num_layers(self) -> int:
        """Count the decoder layers that have tensors."""
        found = (_LAYER.match(name) for name in self._shapes)
        return len({int(match[1]) for match in found if match})

    def check_fits(self, tensors: Mapping[str, Tensor], *, tied_head: bool) -> None:
        """Compare names and shapes, which are in the files' headers; reads no weights.

        Args:
            tensors: the model's tensors by name; only their shapes matter.
            tied_head: the output layer is the embedding; either may be stored, or both.

        Raises:
            ModelError: a tensor is missing, unknown, or of the wrong shape or type.
        """
        found = {n for n in self._shapes if not n.endswith(_DERIVED_SUFFIX)}
        if quantised := sorted(filter(_QUANTISED.search, found - tensors.keys())):
            raise ModelError(
                f"the weights are quantised (there is {_some(quantised)}), which is not supported; "
                "use the model they were made from, in float32, bfloat16 or float16"
            )
        if tied_head and HEAD in found:
            found = found - {HEAD} | {EMBEDDING}
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
                raise ModelError(
                    f"tensor {place} has shape {shape}; the model's settings ask for {wanted}"
                )
            if (dtype := self._types[place]) not in self._supported:
                raise ModelError(
                    f"tensor {place} has type {dtype}, which is not supported; supported are "
                    f"{', '.join(self._supported)}"
                )

    def load_into(
        self,
        tensors: Mapping[str, Tensor],
        *,
        tied_head: bool,
        progress: Callable[[int, int], None] | None = None,
        digest: WeightsDigest | None = None,
    ) -> None:
        """Copy every stored tensor into the model's.

        Args:
            tensors: the model's tensors by name; their dtype may differ from the file's.
            tied_head: the output layer is the embedding, so a stored one must be equal to it.
            progress: called after each tensor with the bytes read and the files' size; at the end
                both are equal.
            digest: is given every tensor, sorted by name, so that no file is read twice.

        Raises:
            ModelError: a tensor is missing, unknown, of the wrong shape or type, or not finite.
        """
        read_bytes, size_bytes = 0, self._size_bytes
        for name, place in self._fitting(tensors, tied_head):
            target, row = tensors[name], 0
            for part in self._digested(name, place, digest):
                target[row : row + len(part)].copy_(part)
                row += len(part)
            _check_finite(name, target)
            read_bytes += self.stored_bytes(place)
            if progress is not None:
                progress(min(read_bytes, size_bytes), size_bytes)
        if progress is not None:
            progress(size_bytes, size_bytes)  # the rest is headers

    def taker(
        self,
        tensors: Mapping[str, Tensor],
        *,
        tied_head: bool,
        progress: Callable[[int, int], None] | None = None,
        digest: WeightsDigest | None = None,
    ) -> tuple[Callable[[str], Tensor], Callable[[str], IntegerWeight]]:
        """Check all that is in the headers, and return what reads a tensor by name.

        Args:
            tensors, tied_head, progress: as for `load_into`; each tensor is taken once.
            digest: is given each as it is taken.

        Returns:
            What reads one as float32, and what reads a linear layer's as `integers` does, or the
            embedding, rounded to 8 bits by rows.

        Raises:
            ModelError: as `load_into`; of a tensor's values, when it is taken.
        """
        places = dict(self._fitting(tensors, tied_head))
        read_bytes, size_bytes = 0, self._size_bytes

        def took(name: str) -> None:
            nonlocal read_bytes
            read_bytes += self.stored_bytes(places.pop(name))
            if progress is not None:
                progress(min(read_bytes, size_bytes) if places else size_bytes, size_bytes)

        def take(name: str) -> Tensor:
            tensor = self._whole(places[name])
            _check_finite(name, tensor)
            if digest is not None:
                digest.add(name, tensor.shape, tensor)
            took(name)
            return tensor.float()

        def take_integers(name: str) -> IntegerWeight:
            as_integers = self._rounded if name == EMBEDDING else self.integers
            whole = as_integers(name, digest)
            took(name)
            return whole

        return take, take_integers

    def verify(self, tensors: Mapping[str, Tensor], *, tied_head: bool) -> set[str]:
        """Check all that `load_into` checks, reading every value and keeping none.

        Args:
            tensors: the model's tensors by name; only their shapes matter.
            tied_head: as for `load_into`.

        Returns:
            The names of the stored tensors' types.

        Raises:
            ModelError: as `load_into`.
        """
        types = set()
        for name, place in self._fitting(tensors, tied_head):
            for part in self._parts(place):
                _check_finite(name, part)
            types.add(self._type_name(place, part))
        return types

    def in_parts(
        self, names: Iterable[str]
    ) -> Iterator[tuple[str, Sequence[int], Iterator[Tensor]]]:
        """Yield (name, shape, parts) as stored, sorted by name; see `parts`.

        Raises:
            ModelError: a file is gone, or cannot be mapped into memory.
        """
        self._check_there()
        for name in sorted(names):
            place = self._place(name)
            yield name, self._shapes[place], self._parts(place)

    def stored(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) as stored, sorted by name, one at a time.

        The embedding of a tied model may be stored as its output layer alone.

        Raises:
            ModelError: a file is gone, or cannot be mapped into memory.
        """
        self._check_there()
        for name in sorted(names):
            yield name, self._whole(self._place(name))

    def _fitting(self, tensors: Mapping[str, Tensor], tied_head: bool) -> Iterator[tuple[str, str]]:
        """Yield (name, name it is stored under), sorted, once all fits the model."""
        self.check_fits(tensors, tied_head=tied_head)
        self._check_there()
        both = tied_head and self._shapes.keys() >= {EMBEDDING, HEAD}
        if both and not all(map(torch.equal, self._parts(EMBEDDING), self._parts(HEAD))):
            raise ModelError(f"tie_word_embeddings is true, but {HEAD} is not the embedding")
        yield from ((name, self._place(name)) for name in sorted(tensors))

    def _check_there(self) -> None:
        for file in self.files:
            if not file.exists():
                raise ModelError(f"{file} does not exist")

    def _place(self, name: str) -> str:
        """Return the name under which a tensor of the model is stored."""
        return HEAD if name == EMBEDDING and name not in self._shapes else name


def joined(parts: Iterable[Tensor], shape: Sequence[int]) -> Tensor:
    """Copy a tensor's consecutive parts into one of the shape."""
    whole, row = torch.empty(0), 0
    for part in parts:
        if not row:
            whole = part.new_empty(shape)
        whole[row : row + len(part)] = part
        row += len(part)
    return whole


def _check_finite(name: str, tensor: Tensor) -> None:
    for part in torch.split(tensor.reshape(-1), _CHECKED_NUMBERS):
        if not torch.isfinite(part).all():
            raise _not_finite(name)


def _not_finite(name: str) -> ModelError:
    return ModelError(f"tensor {name} holds NaN or infinite values")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
