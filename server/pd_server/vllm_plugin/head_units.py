"""How a SkipV1 layer's KV heads are cut into units, of which vLLM's paged cache has pages."""

import math
from dataclasses import dataclass
from typing import Self

from pd_core.errors import ModelError
from pd_core.models import ModelConfig

__all__ = ["HeadUnits"]


@dataclass(frozen=True, slots=True)
class HeadUnits:
    """A model's KV heads in equal units, as large as the heads that are shared allow.

    Attributes:
        heads: KV heads of a unit.
        own: units that have values of their own in each layer but the first, the lower ones.
        shared: units that read the first layer's values there.
    """

    heads: int
    own: int
    shared: int

    @classmethod
    def of(cls, config: ModelConfig) -> Self:
        """Return the units of a SkipV1 model; half of the heads each if half are shared."""
        own = config.num_value_heads(1)
        shared = config.num_kv_heads - own
        heads = math.gcd(own, shared)
        return cls(heads, own // heads, shared // heads)

    @property
    def total(self) -> int:
        """Units of a layer."""
        return self.own + self.shared

    def check_ranks(self, num_ranks: int) -> None:
        """Refuse a number of tensor-parallel ranks that cannot cut every unit evenly.

        Raises:
            ModelError: says why and what to do.
        """
        if self.heads % num_ranks:
            raise ModelError(
                f"SkipV1 parts {self.heads * self.total} KV heads into units of {self.heads} "
                f"({self.heads * self.own} with a layer's own values, {self.heads * self.shared} "
                f"with the first layer's), which cannot be cut into {num_ranks} equal parts; "
                "lower --tensor-parallel-size"
            )
