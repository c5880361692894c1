"""Making float32 results on a CPU independent of batching, and saying when they are.

In plain torch the low-order bits of a token's logits differ when the token is computed in one pass,
in chunks, or alone. That is enough to flip sampled tokens. Three things make the logits equal bit
for bit, and the first must happen before torch is imported:

* MKL's strict conditional reproducibility (`MKL_CBWR`), set by
  `pd_core.host.torch_environment`;
* linear layers by oneDNN, their weights packed once, or by MKL, in either case called with at
  least `min_rows` rows (fewer are padded with zero rows);
* attention in query tiles of one or two fixed shapes, keys padded to a few lengths
  (`pd_core.models.attention`), and no elementwise function whose scalar code for the end of a
  buffer gives different bits from its vector code.

`pd_core.models.numerics_probe` checks on the machine at hand that this works, and digests a fixed
computation: two machines whose digests agree make the same bits. What is promised is in
`docs/reference/exactness.md`.
"""

from dataclasses import dataclass

__all__ = ["INTEGER", "NUMERICS", "Numerics", "unchecked"]

NUMERICS = ("auto", "float32", "integer")
"""The kinds that a user chooses from; auto: see `pd_core.integer.choice`."""

# (N, M): a call of at most N rows is padded to a multiple of M. About thirty sizes up to 512.
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
        """Return the number of rows that a layer is called with for `rows` rows.

        oneDNN makes a kernel for each number of rows when it first meets it, in about a
        millisecond. So a packed layer is called with few different numbers, in steps that add
        little work.
        """
        rows = max(rows, self.min_rows)
        if not self.packed:
            return rows
        step = next((step for most, step in _ROW_STEPS if rows <= most), _MOST_STEP)
        return -(-rows // step) * step


def unchecked(isa: str, *, packed: bool = False) -> Numerics:
    """Return plain numerics without a promise: the fast mode, other devices, other dtypes."""
    return Numerics(reproducible=False, min_rows=1, tile_rows=0, isa=isa, digest="", packed=packed)


INTEGER = Numerics(reproducible=True, min_rows=1, tile_rows=0, isa="any", digest="integer1")
"""Those of `pd_core.integer.reference`; a change of its bits is a new digest."""
