"""What a link to a server of another make needs to know of this device's model."""

from dataclasses import dataclass

from pd_core.generation import ModelCard
from pd_core.text.tokenizer import Tokenizer

__all__ = ["DeviceModel"]


@dataclass(frozen=True, slots=True)
class DeviceModel:
    """The model that runs here.

    Attributes:
        card: what it is.
        tokenizer: its text.
    """

    card: ModelCard
    tokenizer: Tokenizer
