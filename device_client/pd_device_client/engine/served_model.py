"""What a device knows of its model besides the weights, whatever engine has those."""

from typing import Protocol

from pd_core.checkpoints.sampling_defaults import SamplingDefaults
from pd_core.generation import Fingerprints
from pd_core.text.chat_template import ChatTemplate
from pd_core.text.tokenizer import Tokenizer

__all__ = ["ServedModel"]


class ServedModel(Protocol):
    """Names, text and limits of a model; `LoadedModel` is one."""

    @property
    def name(self) -> str:
        """Its name for users."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back."""
        ...

    @property
    def chat_template(self) -> ChatTemplate | None:
        """Turns messages into prompts; None without one."""
        ...

    @property
    def sampling_defaults(self) -> SamplingDefaults:
        """How it is sampled when a request does not say."""
        ...

    @property
    def fingerprints(self) -> Fingerprints:
        """What is compared with the cloud's."""
        ...

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids that end a sequence; may be empty."""
        ...

    @property
    def num_token_ids(self) -> int:
        """Ids are below this."""
        ...

    @property
    def max_context_tokens(self) -> int:
        """Room for a prompt and its answer."""
        ...
