"""A GGUF file, mapped into memory: its header is read, its tensors are where they are."""

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pd_core.errors import ModelError
from pd_core.gguf.block_types import BlockType
from pd_core.gguf.header import Header, TensorPlace, read_header
from pd_core.store.mistaken_models import refuse_pointer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["GgufFile", "StoredTensor"]

_DONT_NEED: int | None = getattr(mmap, "MADV_DONTNEED", None)  # Windows knows no such thing


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as it is stored, in blocks.

    Attributes:
        kind: how its numbers are stored.
        shape: rows first; the last dimension is a row's numbers.
        blocks: (rows, bytes of a row): a view of the file, nothing is copied.
    """

    kind: BlockType
    shape: tuple[int, ...]
    blocks: "NDArray[np.uint8]"


class GgufFile:
    """One file.

    Attributes:
        path: where it is.
        header: what it says before its weights.

    Raises:
        ModelError: it cannot be read, or is not a whole GGUF file of supported types.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as opened:
                refuse_pointer(path, opened.read(100))
                self._mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise ModelError(f"{path} cannot be read as a GGUF file: {error}") from error
        self._content = memoryview(self._mapped)
        try:
            self.header: Header = read_header(self._content)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def stored(self, name: str) -> StoredTensor:
        """Return a tensor by the file's name for it, which must be one of the header's."""
        import numpy as np

        place: TensorPlace = self.header.tensors[name]
        content = self._content[place.begin : place.begin + place.size_bytes]
        row_bytes = place.shape[-1] // place.kind.numbers * place.kind.bytes
        blocks = np.frombuffer(content, np.uint8).reshape(-1, row_bytes)
        return StoredTensor(place.kind, place.shape, blocks)

    def forget_keys(self) -> None:
        """Let the header's keys go, once they are used: they hold the whole vocabulary."""
        self.header = Header({}, self.header.tensors)

    def give_back(self) -> None:
        """Give back the memory of all that was read; it stays readable.

        Else what was read of a mapped file counts as this process's.
        """
        if _DONT_NEED is not None:
            self._mapped.madvise(_DONT_NEED)
