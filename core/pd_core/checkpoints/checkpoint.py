"""Reading and writing the tensors of Hugging Face directories: safetensors, sharded or not."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pd_core.checkpoints.stored_weights import StoredWeights
from pd_core.errors import ModelError
from pd_core.files.atomic import replaced
from pd_core.store.json_file import read_json
from pd_core.store.mistaken_models import refuse_pointer, what_directory_is

__all__ = ["Checkpoint", "read_json", "write_tensors"]

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_FLOATS = ("F32", "F16", "BF16")  # in the words of the files' headers
_BITS = re.compile(r"[0-9]+")
_PART_BYTES = 8 << 20
# The largest models' have a few; each name in a header takes time and twenty times its memory.
_MOST_HEADER_BYTES = 8 << 20


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


class Checkpoint(StoredWeights):
    """The safetensors files of one directory.

    Raises:
        ModelError: there are none, or one is truncated or broken or cannot be mapped into memory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        files = tuple(directory / name for name in sorted(self._file_names()))
        self._file_of: dict[str, Path] = {}
        shapes: dict[str, list[int]] = {}
        types: dict[str, str] = {}
        header_bytes = 0
        for file in files:
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
                    shapes[name] = header.get_shape()
                    types[name] = header.get_dtype()
        super().__init__(files, shapes, types, _FLOATS)

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

    def _whole(self, place: str) -> Tensor:
        file = self._file_of[place]
        with _opened(file) as opened, _our_errors(file):
            tensor: Tensor = opened.get_tensor(place)
        return tensor

    def _parts(self, place: str) -> Iterator[Tensor]:
        shape = self._shapes[place]
        parts = -(-self.stored_bytes(place) // _PART_BYTES) if len(shape) > 1 else 1
        rows = -(-shape[0] // parts) if parts else 1
        for first in range(0, shape[0], rows):
            # Each part is mapped anew: pages that were read count as this process's meanwhile.
            yield self._whole(place)[first : first + rows]

    def stored_bytes(self, place: str) -> int:
        """Return how many bytes of the file a tensor takes."""
        bits = _BITS.search(self._types[place])
        return math.prod(self._shapes[place]) * (int(bits[0]) if bits else 8) // 8


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
