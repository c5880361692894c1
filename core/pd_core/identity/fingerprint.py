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

__all__ = ["cached_digest", "numerics_id", "text_digest", "weights_digest"]


def text_digest(text: str) -> str:
    """Return the hex sha256 of a text; "" (unknown) for an empty one."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def weights_digest(
    tensors: Iterable[tuple[str, "Tensor"]], semantic_config: Mapping[str, object]
) -> str:
    """Return the hex sha256 of tensors and the settings that change what they compute.

    Args:
        tensors: (name, tensor) pairs, sorted by name; may be made one at a time.
        semantic_config: settings, JSON values only.
    """
    import torch

    digest = hashlib.sha256(json.dumps(dict(semantic_config), sort_keys=True).encode())
    for name, tensor in tensors:
        head = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        digest.update(json.dumps(head).encode())
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def cached_digest(kind: str, files: Sequence[Path], compute: Callable[[], str]) -> str:
    """Return compute(), or its earlier result while no file changed its size or times.

    An installer may give every version of a file the same modification time, so the file system's
    own time of change counts too. A cache that cannot be read or written only costs time.

    Args:
        kind: what is digested, with everything it depends on besides the files.
        files: the files it is computed from.
        compute: makes the digest.
    """
    key = [kind, [[str(f.resolve()), *_size_and_times(f)] for f in files]]
    known = kept("weights", key)
    if isinstance(known, str):
        return known
    digest = compute()
    keep("weights", key, digest)
    return digest


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
