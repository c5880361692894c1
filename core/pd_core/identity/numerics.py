"""Making float32 results on a CPU independent of batching, and saying when they are.

Plain torch gives a token's logits different last bits when the token is computed in one pass, in
chunks, or alone, and that is enough to flip sampled tokens. Three things make them equal bit for
bit, and the first must happen before torch is imported:

* MKL's strict conditional reproducibility (`MKL_CBWR`), set by `prepare_environment`;
* linear layers by oneDNN, their weights packed once, or by MKL, in either case called with at
  least `min_rows` rows (fewer are padded with zero rows);
* attention in query tiles of one or two fixed shapes, keys padded to a few lengths
  (`pd_core.models.attention`), and no elementwise function with another scalar tail.

`probe` checks on the machine at hand that this works, and digests a fixed computation: two
machines whose digests agree make the same bits. What is promised is in `docs/exactness.md`.
This module imports torch only inside functions.
"""

import functools
import os
import platform
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

from pd_core.errors import ConfigError

__all__ = ["Numerics", "numerics_id", "prepare_environment", "probe", "unchecked"]

_VARIABLE = "MKL_CBWR"
# (up to so many rows, a multiple of this): thirty numbers up to 512.
_ROW_STEPS = ((32, 4), (128, 8))
_MOST_STEP = 32


@dataclass(frozen=True, slots=True)
class Numerics:
    """How linear layers are called, and what that is known to give.

    Attributes:
        reproducible: results do not depend on chunks, batches or (but for tiles) thread count.
        min_rows: calls of a linear layer with fewer rows are padded to this many.
        tile_rows: when not 0, every call is cut into tiles of this many rows instead.
        isa: torch's CPU capability or the device's name; informative.
        digest: hex sha256 over the output bits of a fixed computation; "" when unchecked.
        key_steps: lengths the last block of an attention's keys may have, rising; the longest is a
            whole block.
        query_rows: rows of an attention's smallest tile.
        packed: layers' weights are kept in the order that oneDNN's product wants.
    """

    reproducible: bool
    min_rows: int
    tile_rows: int
    isa: str
    digest: str
    key_steps: tuple[int, ...] = (512,)
    query_rows: int = 8
    packed: bool = False

    def padded_rows(self, rows: int) -> int:
        """Return how many rows a layer is called with for so many.

        oneDNN makes a kernel for each number of rows when it meets it, in about a millisecond, so
        a packed layer meets few numbers: steps that add little to what is computed.
        """
        rows = max(rows, self.min_rows)
        if not self.packed:
            return rows
        step = next((step for most, step in _ROW_STEPS if rows <= most), _MOST_STEP)
        return -(-rows // step) * step


def prepare_environment(*, fast: bool = False) -> None:
    """Ask MKL for strict reproducibility. Call it before anything imports torch.

    A value that is already in the environment is kept: `AVX2,STRICT` on a machine with AVX-512,
    say, makes the bits of one without. What the value is worth is for `probe` to find out.

    Args:
        fast: leave the environment as it is, for the fast mode that promises no equal bits.

    Raises:
        ConfigError: torch is imported already, and was not asked to be reproducible.
    """
    setting = _strictest_setting()
    if fast or setting is None or os.environ.get(_VARIABLE):
        return
    if "torch" in sys.modules:
        raise ConfigError(
            f"torch was imported before {_VARIABLE} was set, so its results would not be "
            f"reproducible; call prepare_environment() first, or set {_VARIABLE}={setting}"
        )
    os.environ[_VARIABLE] = setting


def _strictest_setting() -> str | None:
    """Return the MKL_CBWR value for this CPU; None where torch does not use MKL."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(errors="replace") if cpuinfo.exists() else ""
    return "AVX512,STRICT" if " avx512f " in flags else "AVX2,STRICT"


def unchecked(isa: str, *, packed: bool = False) -> Numerics:
    """Return plain numerics without a promise: the fast mode, other devices, other dtypes."""
    return Numerics(reproducible=False, min_rows=1, tile_rows=0, isa=isa, digest="", packed=packed)


@functools.cache
def probe() -> Numerics:
    """Find the cheapest way to equal bits on this machine, in a second or two.

    Tried in order: linear layers with packed weights, called as they are or padded to 4, 8 or 16
    rows, at one and two threads and the present number; the same with plain weights; then 16-row
    tiles at the present number of threads. Likewise attention with shorter last blocks of keys
    and small tiles, then without the one, then without either. If none gives equal bits, or
    attention or elementwise functions do not, the result says so.
    The thread count is changed while it runs, so call it before other threads use torch.
    """
    from pd_core.models import numerics_probe

    return numerics_probe.run()


def numerics_id(dtype: str, engine: str = "torch", numerics: Numerics | None = None) -> str:
    """Return the id that two sides compare: equal ids promise identical text.

    Without reproducible numerics nothing may be promised, not even between two runs of the same
    program, so the digest's place is then taken by a random value that equals no other.

    Args:
        dtype: of weights and activations, such as "float32".
        engine: "torch" or another engine's name.
        numerics: the probe's result; None means the fast mode.
    """
    from pd_core.sampling.sampling import SAMPLER_VERSION

    isa = "any" if numerics is None else numerics.isa
    head = f"{dtype}/{engine}/{isa}/sampler{SAMPLER_VERSION}"
    if numerics is None or not numerics.reproducible:
        return f"{head}/{uuid.uuid4().hex[:16]}/fast"
    return f"{head}/{numerics.digest[:16]}"
