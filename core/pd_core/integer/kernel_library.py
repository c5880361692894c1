"""The native kernels as ctypes sees them; without a library torch computes the same bits."""

import ctypes
import functools
import logging
import os
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_void_p
from pathlib import Path

from pd_core.integer.target import this_machine

__all__ = [
    "KERNELS",
    "KERNEL_VARIABLE",
    "Cached",
    "LayerPointers",
    "LinearPointers",
    "SegmentPointers",
    "Shape",
    "kernel_library",
    "open_library",
    "wanted_isa",
]

logger = logging.getLogger(__name__)

KERNELS = ("auto", "avx512", "avx2", "dotprod", "portable", "off")
"""What chooses the kernels: avx512 and avx2 on x86-64, dotprod on arm64, the others anywhere."""

KERNEL_VARIABLE = "PD_KERNEL"

_ABI = 2


def _fields(kind: type, names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class LinearPointers(Structure):
    """A weight; see `pd_linear` in kernel.h, as for the others."""

    _fields_ = [
        *_fields(c_void_p, "codes steps scales bias"),
        *_fields(c_int32, "rows cols bits planes"),
    ]


class LayerPointers(Structure):
    """The weights of a layer."""

    _fields_ = [
        *_fields(LinearPointers, "qkv out gate_up down"),
        *_fields(c_void_p, "input_norm post_norm query_norm key_norm"),
        *_fields(c_int32, "own_keys own_values key_layer"),
    ]


class Shape(Structure):
    """The sizes of a model."""

    _fields_ = [
        *_fields(c_int32, "hidden inner num_layers heads kv_heads head_dim"),
        ("eps", c_float),
    ]


class Cached(Structure):
    """One layer of a sequence's cache."""

    _fields_ = _fields(c_void_p, "keys key_scales values value_scales")


class SegmentPointers(Structure):
    """Consecutive tokens of one sequence."""

    _fields_ = [("cached", POINTER(Cached)), *_fields(c_int32, "capacity start count first_row")]


@functools.cache
def kernel_library() -> ctypes.CDLL | None:
    """Return the library; None: there is none, it is switched off, or it cannot be loaded.

    The variable PD_KERNEL chooses: "off" computes by torch; "avx2" or another by the kernels of
    that instruction set, where the processor has it; unset or "auto" by the best.
    """
    if os.environ.get(KERNEL_VARIABLE) == "off":
        logger.info("the native kernels are switched off by %s; torch computes", KERNEL_VARIABLE)
        return None
    try:
        return open_library(Path(__file__).with_name("native") / this_machine().library_name)
    except OSError as error:
        # As an error: a chat shows nothing less, and an answer takes ten times as long.
        logger.error(
            "the native kernels cannot be loaded (%s); `python -m pd_core.integer.build` builds "
            "them. Without them torch computes integers, slower and to the same bits; --numerics "
            "auto takes float32 where no cloud says that it computes integers, and answers then "
            "do not equal those of a cloud that does: --numerics integer keeps them equal",
            error,
        )
        return None


def open_library(path: Path) -> ctypes.CDLL:
    """Load a library.

    Raises:
        OSError: it is missing, for another machine, or of another version.
    """
    library = ctypes.CDLL(str(path))
    try:
        if library.pd_abi() != _ABI:
            raise OSError(f"{path} is of another version")
        _declare(library)
    except AttributeError as error:
        raise OSError(f"{path} is of another version: {error}") from error
    return library


def wanted_isa() -> bytes:
    """Return the instruction set that PD_KERNEL names; b"" for the best."""
    wanted = os.environ.get(KERNEL_VARIABLE, "")
    return b"" if wanted == "auto" else os.fsencode(wanted)


def _declare(library: ctypes.CDLL) -> None:
    signatures: dict[str, tuple[object, list[object]]] = {
        "pd_isa": (c_char_p, [c_char_p]),
        "pd_open": (c_void_p, [POINTER(Shape), c_char_p, c_int, c_int, c_int]),
        "pd_close": (None, [c_void_p]),
        "pd_run": (
            c_int,
            [
                *[c_void_p, POINTER(LayerPointers), c_int, c_void_p, c_int, c_void_p, c_void_p],
                *[POINTER(SegmentPointers), c_int],
            ],
        ),
        "pd_embed": (c_int, [POINTER(LinearPointers), c_void_p, c_int, c_void_p]),
        "pd_norm": (c_int, [c_void_p, c_void_p, c_void_p, c_int]),
        "pd_logits": (c_int, [c_void_p, POINTER(LinearPointers), c_void_p, c_int, c_void_p]),
        "pd_queries": (None, [c_void_p, c_int, c_void_p, c_void_p]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
