"""Digests and ids that say whether two sides run the same model and compute the same bits.

The digest of a checkpoint's weights reads every byte, so it is kept in a small file in the user's
cache directory, by the files' sizes and times.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pd_core.files.kept_results import keep, kept
from pd_core.identity.numerics import Numerics

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "WeightsDigest",
    "cached_digest",
    "knows_digest",
    "numerics_id",
    "text_digest",
    "weights_digest",
]

_KEPT = "weights"  # the results' folder


def text_digest(text: str) -> str:
    """Return the hex sha256 of a text; "" (unknown) for an empty one."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


class WeightsDigest:
    """The digest of tensors and of the settings that change what they compute, as it is made.

    Args:
        semantic_config: settings, JSON values only.
    """

    def __init__(self, semantic_config: Mapping[str, object]) -> None:
        content = json.dumps(dict(semantic_config), sort_keys=True)
        self._digest = hashlib.sha256(content.encode())
        self._names: list[str] = []

    def add(self, name: str, shape: Sequence[int], part: "Tensor") -> None:
        """Add a tensor, or the next of its parts of consecutive rows.

        Args:
            name: the tensor's.
            shape: the whole tensor's.
            part: some of it.
        """
        import torch

        if self._names[-1:] != [name]:
            self._names.append(name)
            head = [name, str(part.dtype).removeprefix("torch."), list(shape)]
            self._digest.update(json.dumps(head).encode())
        raw = part.detach().cpu().contiguous().flatten().view(torch.uint8)
        self._digest.update(raw.numpy().data)

    def of(self, names: Iterable[str]) -> str | None:
        """Return the hex sha256; None: just these were not added, or not sorted by name."""
        return self._digest.hexdigest() if self._names == sorted(names) else None


def weights_digest(
    tensors: Iterable[tuple[str, Sequence[int], Iterable["Tensor"]]],
    semantic_config: Mapping[str, object],
) -> str:
    """Return the hex sha256 of tensors and the settings that change what they compute.

    Args:
        tensors: names, shapes and parts of consecutive rows, sorted by name; may be made one at a
            time.
        semantic_config: settings, JSON values only.
    """
    digest, names = WeightsDigest(semantic_config), []
    for name, shape, parts in tensors:
        names.append(name)
        for part in parts:
            digest.add(name, shape, part)
    found = digest.of(names)
    assert found is not None, "they are sorted"
    return found


def knows_digest(kind: str, files: Sequence[Path]) -> bool:
    """Whether `cached_digest` has the result of these files, and will not compute it."""
    return isinstance(kept(_KEPT, _key(kind, files)), str)


def cached_digest(kind: str, files: Sequence[Path], compute: Callable[[], str]) -> str:
    """Return compute(), or its earlier result while no file changed its size or times.

    An installer may give every version of a file the same modification time, so the file system's
    own time of change counts too. A cache that cannot be read or written only costs time.

    Args:
        kind: what is digested, with everything it depends on besides the files.
        files: the files it is computed from.
        compute: makes the digest.
    """
    key = _key(kind, files)
    known = kept(_KEPT, key)
    if isinstance(known, str):
        return known
    digest = compute()
    keep(_KEPT, key, digest)
    return digest


def _key(kind: str, files: Sequence[Path]) -> list[object]:
    return [kind, [[str(f.resolve()), *_size_and_times(f)] for f in files]]


def numerics_id(dtype: str, engine: str = "torch", numerics: Numerics | None = None) -> str:
    """Return the id that two sides compare: equal ids promise identical text.

    Without reproducible numerics nothing can be promised, not even between two runs of the same
    program, so a random value, equal to no other, then replaces the digest.

    Args:
        dtype: dtype of weights and activations, such as "float32".
        engine: "torch" or another engine's name.
        numerics: the probe's result; None means the fast mode.
    """
    from pd_core.sampling.sampling import SAMPLER_VERSION

    isa = "any" if numerics is None else numerics.isa
    head = f"{dtype}/{engine}/{isa}/sampler{SAMPLER_VERSION}"
    if numerics is None or not numerics.reproducible:
        return f"{head}/{uuid.uuid4().hex[:16]}/fast"
    return f"{head}/{numerics.digest[:16]}"


def _size_and_times(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
