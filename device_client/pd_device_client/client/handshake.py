"""Whether an answer can be handed between two sides, from their fingerprints (DESIGN 2)."""

from dataclasses import dataclass

from pd_core.generation import ModelCard

__all__ = ["ALONE", "Handshake", "shake_hands"]


@dataclass(frozen=True, slots=True)
class Handshake:
    """The result of comparing both sides.

    Attributes:
        mismatch: why no handoff is possible, in words for the user; "" when it is.
        other_text: which differences change how text becomes tokens, or tokens text; with any,
            the cloud cannot even answer alone. "" without one.
        exactness: "identical" when both sides match and have equal numerics, else "consistent";
            "text" with a cloud that takes and gives text.
    """

    mismatch: str
    other_text: str
    exactness: str


ALONE = Handshake("", "", "identical")
"""With one side only there is nothing to compare."""


def shake_hands(device: ModelCard, cloud: ModelCard) -> Handshake:
    """Compare both sides; a digest that is missing on either side is skipped."""
    ours, theirs = device.fingerprints, cloud.fingerprints
    parts = (
        ("tokenizers", ours.tokenizer, theirs.tokenizer),
        ("chat templates", ours.chat_template, theirs.chat_template),
        ("weights", ours.weights, theirs.weights),
    )
    differing = [name for name, a, b in parts if a and b and a != b]
    if set(device.eos_token_ids) != set(cloud.eos_token_ids):
        differing.append("end-of-sequence ids")
    if device.sampler != cloud.sampler:
        differing.append(f"samplers ({device.sampler} here, {cloud.sampler} there)")
    mismatch = ""
    if differing:
        mismatch = (
            f"the {' and the '.join(differing)} of device and cloud ({cloud.name}) differ, "
            "so no answer can be handed over; run the same model on both sides"
        )
    # An emulation's tokens do not come from floating point, so rounding cannot differ.
    same = device.sampler == "rolling-hash" or (
        ours.numerics_id != "" and ours.numerics_id == theirs.numerics_id
    )
    other_text = ", ".join(name for name in differing if name in ("tokenizers", "chat templates"))
    exactness = "identical" if same and not mismatch else "consistent"
    return Handshake(mismatch, other_text, exactness)
