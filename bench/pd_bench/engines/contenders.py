"""The engines that are compared, by name; new ones of ours are added to OURS."""

from dataclasses import dataclass
from typing import Protocol

__all__ = ["FOUR_BITS", "OURS", "THEIRS", "Contender", "MeasuredEngine", "counterpart"]

FOUR_BITS = "integer-4"
"""The form of our weights of 4 bits."""


@dataclass(frozen=True, slots=True)
class Contender:
    """An engine under test.

    Attributes:
        name: as in tables and in the document.
        kind: which program runs it: "torch" or "llama-cpp".
        bits: of a weight.
        form: how the weights are held: a dtype or numerics of ours, or llama.cpp's type.
    """

    name: str
    kind: str
    bits: int
    form: str


OURS = {
    "float32": Contender("float32", "torch", 32, "float32"),
    "integer": Contender("integer", "torch", 8, "integer"),
    "integer-4": Contender("integer-4", "torch", 4, FOUR_BITS),
}
"""Ours by the name of their numerics; of 4 bits: integers on a directory that is made for it.

One of 8 or 4 bits is compared at equal bits.
"""

THEIRS = {
    "llama-cpp": (
        Contender("llama.cpp Q8_0", "llama-cpp", 8, "Q8_0"),
        Contender("llama.cpp Q4_0", "llama-cpp", 4, "Q4_0"),
    )
}
"""What `--against` names."""


def counterpart(ours: list[Contender], bits: int) -> Contender:
    """Return the engine of ours to compare with one of so many bits: of equal bits, or the widest.

    A float32 engine stands for all widths until there is one.
    """
    equal = [tested for tested in ours if tested.bits == bits]
    return equal[0] if equal else max(ours, key=lambda tested: tested.bits)


class MeasuredEngine(Protocol):
    """One sequence on an engine, in a process of its own.

    Attributes:
        weight_bytes: what a decode step reads of the weights.
        kv_bytes_per_token: what it reads of each token's keys and values.
    """

    weight_bytes: int
    kv_bytes_per_token: int

    def run(self, start: int, num_tokens: int) -> None:
        """Put tokens through at this position, up to the last one's logits; later ones are gone."""
        ...
