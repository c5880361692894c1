"""A GGUF file as a model: shape, tokenizer, template and weights, all from the one file."""

from pathlib import Path

from pd_core.checkpoints.gguf_weights import GgufWeights
from pd_core.checkpoints.model_files import ModelFiles
from pd_core.checkpoints.sampling_defaults import SamplingDefaults
from pd_core.checkpoints.tokenizer_config import TokenizerConfig
from pd_core.errors import InvalidSamplingParams, ModelError
from pd_core.gguf.gguf_file import GgufFile
from pd_core.gguf.keys import Keys
from pd_core.gguf.model_shape import FREQUENCY_FACTORS, model_shape
from pd_core.gguf.tokenizer_json import tokenizer_json
from pd_core.gguf.vocabulary import Vocabulary, read_vocabulary
from pd_core.models.config import ModelConfig
from pd_core.text.tokenizer import Tokenizer
from pd_core.text.tokenizer_trial import try_out

__all__ = ["GgufModel"]

_SAMPLING = "general.sampling."


class GgufModel(ModelFiles):
    """The content of one GGUF file.

    Args:
        path: the file.
        name: what the model is called.

    Raises:
        ModelError: the file is broken or unsupported, or its parts do not match; the message says
            which and why.
    """

    def __init__(self, path: Path, name: str) -> None:
        file = GgufFile(path)
        keys = Keys(file.header.keys)
        try:
            config = _config(file, keys)
            vocabulary = read_vocabulary(keys)
            super().__init__(
                name=name,
                config=config,
                tokenizer=_tokenizer(vocabulary, keys, config.vocab_size),
                settings=TokenizerConfig(
                    {name: vocabulary.tokens[i] for name, i in vocabulary.special.items()},
                    keys.text("tokenizer.chat_template", ""),
                ),
                eos_token_ids=vocabulary.end_ids,
                sampling_defaults=_sampling_defaults(keys),
                checkpoint=GgufWeights(file, config),
            )
            file.forget_keys()
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error


def _config(file: GgufFile, keys: Keys) -> ModelConfig:
    tensors = file.header.tensors
    factors = None
    if (place := tensors.get(FREQUENCY_FACTORS)) is not None:
        if place.kind.name != "F32" or len(place.shape) != 1:
            raise ModelError(f"tensor {FREQUENCY_FACTORS} must be a row of F32")
        factors = file.stored(FREQUENCY_FACTORS).blocks.view("float32").reshape(-1).tolist()
    return model_shape(keys, tensors, factors)


def _tokenizer(vocabulary: Vocabulary, keys: Keys, embedding_rows: int) -> Tokenizer:
    count = vocabulary.num_ids
    if count != embedding_rows:
        raise ModelError(
            f"the tokenizer has {count} tokens, and the embedding {embedding_rows} rows; they do "
            "not belong together"
        )
    content = tokenizer_json(vocabulary, keys)
    try:
        try_out(content)
        return Tokenizer.from_str(content)
    except ModelError as error:
        raise ModelError(f"its tokenizer: {error}") from error


def _sampling_defaults(keys: Keys) -> SamplingDefaults:
    """Read how the model wants to be sampled; greedy where it does not say, as for a directory."""
    temperature = keys.real(f"{_SAMPLING}temp", 0.0)
    samples = temperature > 0
    values = SamplingDefaults(
        temperature=temperature,
        top_k=keys.whole(f"{_SAMPLING}top_k", 0) if samples else 0,
        top_p=keys.real(f"{_SAMPLING}top_p", 1.0) if samples else 1.0,
        min_p=keys.real(f"{_SAMPLING}min_p", 0.0) if samples else 0.0,
        repetition_penalty=keys.real(f"{_SAMPLING}penalty_repeat", 1.0),
    )
    try:
        values.params(seed=0)
    except InvalidSamplingParams as error:
        raise ModelError(f"the keys {_SAMPLING}*: {error}") from error
    return values
