"""A model on the disk, in whatever form: everything except the weights' values."""

import torch
from torch import Tensor

from pd_core.checkpoints.sampling_defaults import SamplingDefaults
from pd_core.checkpoints.stored_weights import StoredWeights
from pd_core.checkpoints.tokenizer_config import TokenizerConfig
from pd_core.errors import ModelError
from pd_core.identity.numerics import unchecked
from pd_core.models.causal_lm import CausalLM
from pd_core.models.config import ModelConfig
from pd_core.text.tokenizer import Tokenizer

__all__ = ["ModelFiles"]


class ModelFiles:
    """What a model's files say, checked against each other.

    Args:
        name: the name of the directory, or of the file without its suffix.
        config: the model's shape.
        tokenizer: the tokenizer.
        settings: special tokens and chat template.
        eos_token_ids: ids that end a sequence; may be empty.
        sampling_defaults: the model's own sampling parameters.
        checkpoint: the weights, with their headers read.

    Attributes:
        name: as given, as are `config`, `tokenizer`, `settings`, `eos_token_ids`,
            `sampling_defaults` and `checkpoint`.
        chat_template: the compiled template; None when there is none.
        shapes: the model's weights by name, on the meta device, which takes no memory.

    Raises:
        ModelError: the config and the weights do not match.
    """

    def __init__(
        self,
        *,
        name: str,
        config: ModelConfig,
        tokenizer: Tokenizer,
        settings: TokenizerConfig,
        eos_token_ids: tuple[int, ...],
        sampling_defaults: SamplingDefaults,
        checkpoint: StoredWeights,
    ) -> None:
        self.name = name
        self.config = config
        self.tokenizer = tokenizer
        self.settings = settings
        self.eos_token_ids = eos_token_ids
        self.sampling_defaults = sampling_defaults
        self.checkpoint = checkpoint
        self.chat_template = settings.template()
        self.shapes = self._read_shapes()

    def _read_shapes(self) -> dict[str, Tensor]:
        """Compare the config with the weights' headers, before memory is allocated by its sizes."""
        config, stored = self.config, self.checkpoint.num_layers()
        if config.num_layers > stored:
            raise ModelError(
                f"the model's settings name {config.num_layers} layers, but the checkpoint has "
                f"weights of {stored}"
            )
        shapes = CausalLM(config, unchecked("meta"), device=torch.device("meta")).tensors()
        self.checkpoint.check_fits(shapes, tied_head=config.tie_word_embeddings)
        return shapes
