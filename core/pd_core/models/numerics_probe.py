"""Finds out how this machine computes equal bits, and which: the basis of the numerics id."""

import functools
import hashlib
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from pd_core.files.kept_results import keep, kept
from pd_core.host.cpu import cpu_description
from pd_core.identity import numerics as identity
from pd_core.identity.numerics import Numerics
from pd_core.models.bit_checks import (
    attention_is_equal,
    bits_digest,
    elementwise_is_equal,
    linear_is_equal,
    num_threads,
    sums_are_equal,
)
from pd_core.models.kv_cache import KEY_BLOCK
from pd_core.models.linear import can_pack

__all__ = ["checked_threads", "probe", "whole_probe"]

logger = logging.getLogger(__name__)

# MKL does not split a sum of up to 192 products, and splits one of 384 or more after every 192. In
# between it halves the sum, so those lengths give different bits.
_KEY_STEPS = (64, 128, 192, 384, 448, KEY_BLOCK)
# Lengths of the last block, and rows of the smallest tile: MKL has different code for 1 to 3 rows.
_ATTENTION = ((_KEY_STEPS, 4), (_KEY_STEPS, 8), ((KEY_BLOCK,), 8))
_KIND = "numerics"
# Variables that torch's libraries read, and variables that replace those libraries.
_VARIABLES = (
    *("ATEN_", "DNNL_", "GLIBC_", "GOMP_", "KMP_", "LD_", "MKL_", "OMP_", "ONEDNN_"),
    *("PYTORCH_", "TORCH_"),
)


@functools.cache
def probe() -> Numerics:
    """Return the cheapest way to equal bits on this machine, cached or found now.

    The result is cached, keyed by everything it depends on. It is used only if the digest of its
    fixed computation, computed again on one thread, is the same; in any doubt the whole probe runs.
    The thread count is changed meanwhile, so call this before other threads use torch.
    """
    key = _key()
    if key is not None and (known := _known(kept(_KIND, key))) is not None:
        return known
    found = whole_probe()
    if key is not None and found.reproducible:
        keep(_KIND, key, asdict(found))
    return found


def whole_probe() -> Numerics:
    """Find the cheapest way to equal bits on this machine, in a second or two.

    Tried in order: linear layers with packed weights, unpadded or padded to 4, 8 or 16 rows, at one
    and two threads and the present number; the same with plain weights; then 16-row tiles at the
    present number of threads. For attention: shorter last blocks of keys with small tiles, then
    without small tiles, then without either. If none of them gives equal bits, or elementwise
    functions do not, the result says so.
    """
    for candidate, counts in _candidates():
        if not (linear_is_equal(candidate, counts) and sums_are_equal(candidate, counts)):
            continue
        way = next((way for way in _ATTENTION if attention_is_equal(counts, *way)), None)
        if way is None or not elementwise_is_equal(counts):
            break
        steps, rows = way
        digest = bits_digest(candidate)
        return replace(candidate, digest=digest, key_steps=steps, query_rows=rows)
    return Numerics(False, 1, 0, _isa(), "")


def _candidates() -> list[tuple[Numerics, list[int]]]:
    """Return the ways to call linear layers, each with the thread counts to try."""
    isa, present = _isa(), torch.get_num_threads()
    candidates = [
        (Numerics(True, rows, 0, isa, "", packed=packed), checked_threads())
        for packed in ((True, False) if can_pack() else (False,))
        for rows in (1, 4, 8, 16)
    ]
    return [*candidates, (Numerics(True, 1, 16, isa, ""), [present])]


def checked_threads() -> list[int]:
    """Return the numbers of threads for which `probe` checks that the bits are equal."""
    return sorted({1, 2, torch.get_num_threads()})


def _isa() -> str:
    return torch.backends.cpu.get_cpu_capability().lower()


def _known(value: Any) -> Numerics | None:
    """Return the cached result if it is one of the probe's ways and still gives the same bits."""
    for candidate, counts in _candidates():
        for steps, rows in _ATTENTION:
            found = replace(candidate, key_steps=steps, query_rows=rows)
            if not isinstance(value, dict) or _as_kept(found) != value | {"digest": ""}:
                continue
            with num_threads(counts[0]):
                digest = bits_digest(found)
            if digest == value.get("digest"):
                return replace(found, digest=digest)
            logger.warning("this machine makes other bits than before; it is probed again")
    return None


def _as_kept(numerics: Numerics) -> dict[str, Any]:
    return asdict(numerics) | {"key_steps": [*numerics.key_steps]}


def _key() -> list[object] | None:
    """Return everything the probe's result depends on; None if that cannot be determined."""
    cpu, sources = cpu_description(), _sources()
    if cpu is None or sources is None:
        return None
    variables = {k: v for k, v in sorted(os.environ.items()) if k.startswith(_VARIABLES)}
    switches = [torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled]
    build = [torch.__version__, torch.__config__.show()]
    return [cpu, build, _isa(), switches, variables, checked_threads(), sources]


def _sources() -> str | None:
    """Return the digest of the checked code and of the code that checks it."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(identity.__file__)]
    try:
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    except OSError:
        return None
