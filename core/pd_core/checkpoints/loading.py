"""From a name or a directory to a model that is ready to run."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten

import torch

from pd_core.checkpoints.any_model import read_model_files
from pd_core.checkpoints.checkpoint import write_tensors
from pd_core.checkpoints.hf_config import write_config
from pd_core.checkpoints.model_files import ModelFiles
from pd_core.checkpoints.random_tiny import (
    EOS_TOKEN,
    fill_weights,
    random_tiny_config,
    random_tiny_tokenizer,
)
from pd_core.checkpoints.sampling_defaults import SamplingDefaults
from pd_core.checkpoints.tokenizer_config import TokenizerConfig
from pd_core.errors import ModelError
from pd_core.generation import Fingerprints
from pd_core.host.free_memory import trim_heap
from pd_core.identity.fingerprint import (
    WeightsDigest,
    cached_digest,
    knows_digest,
    numerics_id,
    text_digest,
    weights_digest,
)
from pd_core.identity.numerics import INTEGER, Numerics, unchecked
from pd_core.integer.choice import chosen_numerics
from pd_core.integer.device_check import check_bits
from pd_core.integer.integer_lm import IntegerLM
from pd_core.integer.native_passes import serving_kernels
from pd_core.models.causal_lm import CausalLM
from pd_core.models.config import ModelConfig
from pd_core.models.linear import can_pack
from pd_core.models.numerics_probe import probe
from pd_core.store.model_names import RANDOM_TINY, model_path
from pd_core.text.chat_template import ChatTemplate
from pd_core.text.tokenizer import Tokenizer

__all__ = ["DTYPES", "LoadedModel", "load_model", "read_fingerprints", "save_model"]

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoadedModel:
    """A model with everything needed to serve it.

    Attributes:
        name: the directory's or GGUF file's name, also for the shipped model, or "random-tiny".
        eos_token_ids: ids that end a sequence; may be empty.
        chat_template: turns messages into prompts; None when the checkpoint has no template.
        sampling_defaults: how it is sampled when a request does not say.
    """

    name: str
    model: CausalLM | IntegerLM
    tokenizer: Tokenizer
    fingerprints: Fingerprints
    eos_token_ids: tuple[int, ...]
    numerics: Numerics
    chat_template: ChatTemplate | None = None
    sampling_defaults: SamplingDefaults = field(default_factory=SamplingDefaults)

    @property
    def float_model(self) -> CausalLM:
        """The model, loaded without integer numerics: it has tensors and layers to look at."""
        assert isinstance(self.model, CausalLM), "it was loaded as floats"
        return self.model

    @property
    def num_token_ids(self) -> int:
        """Ids are below this."""
        return self.model.num_token_ids

    @property
    def max_context_tokens(self) -> int:
        """Room for a prompt and its answer."""
        return self.model.config.max_context_tokens


def load_model(
    spec: str,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    fast: bool = False,
    numerics: str = "float32",
    files: ModelFiles | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LoadedModel:
    """Load the shipped model or "random-tiny" by name, a Hugging Face directory or a GGUF file.

    Only float32 on the CPU and integers are bit-reproducible. Other dtypes and devices, and the
    fast mode, use plain kernels and get a numerics id that equals no other.

    Args:
        spec: the name or a path.
        dtype: "float32", "bfloat16" or "float16".
        device: a torch device.
        fast: give up bit-equality for speed.
        numerics: one of NUMERICS; "integer": the weights are rounded to 8 bits, and all is computed
            reproducibly on any device; dtype and fast do not apply then.
        files: what `check_memory` read of it; None: it is read here.
        progress: called with the bytes read so far and the size of the weights' files; never for a
            model without files.

    Raises:
        ModelError: it cannot be loaded; the message says why.
    """
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    logger.debug("loading %s", spec)
    _check_device(device)
    plain = torch.device(device).type == "cpu" and dtype == "float32" and not fast
    if numerics == "integer" and (fast or dtype != "float32"):
        raise ModelError(
            "integer numerics have a type of their own, and no fast mode; leave the dtype and the "
            "fast mode out"
        )
    if spec == RANDOM_TINY:
        found = _numerics(numerics, dtype, device, fast=fast)
        loaded = _load_random_tiny(found, dtype, device)
    else:
        files = files or read_model_files(model_path(spec))
        num_parameters = sum(tensor.numel() for tensor in files.shapes.values())
        kind = chosen_numerics(numerics, files.config, num_parameters, plain=plain)
        found = _numerics(kind, dtype, device, fast=fast)
        loaded = _load_files(files, found, dtype, device, progress)
    logger.debug("the fingerprints are known of %s", loaded.name)
    return loaded


def read_fingerprints(files: ModelFiles, numerics_id: str) -> Fingerprints:
    """Return a checkpoint's fingerprints without loading it, for engines that load it themselves.

    Raises:
        ModelError: its tensors cannot be read, or do not match its config.
    """
    files.checkpoint.verify(files.shapes, tied_head=files.config.tie_word_embeddings)
    return _fingerprints(files, numerics_id)


def save_model(
    directory: Path | str,
    model: CausalLM,
    tokenizer: Tokenizer,
    *,
    eos_token_ids: tuple[int, ...] = (),
    tokenizer_config: TokenizerConfig | None = None,
) -> None:
    """Write an ordinary Hugging Face directory: config.json, model.safetensors, tokenizer.json.

    Args:
        directory: where to write; created if it does not exist.
        model: the model, whose weights are written in its dtype.
        tokenizer: its tokenizer.
        eos_token_ids: ids that end a sequence.
        tokenizer_config: special tokens and chat template, written beside the tokenizer.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = write_config(model.config) | {"torch_dtype": str(model.dtype).removeprefix("torch.")}
    if eos_token_ids:
        config["eos_token_id"] = list(eos_token_ids)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (directory / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    if tokenizer_config is not None:
        tokenizer_config.write(directory)
    write_tensors(directory, model.tensors())


def _check_device(device: str) -> None:
    """Compute one number on a device: only then does torch notice that it does not work.

    Raises:
        ModelError: the name is unknown, or this machine or its torch has no such device.
    """
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = shorten(str(error) or type(error).__name__, 100, placeholder=" ...")
        raise ModelError(
            f"no model can run on device {device!r} ({reason}); use --device cpu, or a GPU that "
            "this machine and its torch have"
        ) from error


def _numerics(wanted: str, dtype: str, device: str, *, fast: bool) -> Numerics:
    found = INTEGER if wanted == "integer" else _float_numerics(dtype, device, fast=fast)
    logger.debug("the numerics are known, reproducible: %s", found.reproducible)
    return found


def _float_numerics(dtype: str, device: str, *, fast: bool) -> Numerics:
    kind = torch.device(device).type
    if kind != "cpu":
        return unchecked(kind)
    if fast or dtype != "float32":
        isa = torch.backends.cpu.get_cpu_capability().lower()
        return unchecked(isa, packed=dtype == "float32" and can_pack())
    return probe()


def _load_random_tiny(numerics: Numerics, dtype: str, device: str) -> LoadedModel:
    tokenizer = random_tiny_tokenizer()
    config = random_tiny_config(tokenizer.vocab_size)
    # The fingerprint is that of the float32 weights, whatever dtype the model runs in.
    source = CausalLM(config, unchecked("source"))
    fill_weights(source, tokenizer)
    stored = source.tensors()
    model: CausalLM | IntegerLM
    if numerics is INTEGER:
        _check_integers(config, device)
        model = IntegerLM(config, stored.__getitem__, device=torch.device(device))
    else:
        model = CausalLM(config, numerics, dtype=DTYPES[dtype], device=torch.device(device))
        for name, tensor in model.tensors().items():
            tensor.copy_(stored[name])
    model.warm_up()
    logger.debug("the weights are in memory")
    eos = tokenizer.token_id(EOS_TOKEN)
    assert eos is not None, "the shipped tokenizer has an end-of-sequence token"
    weights = weights_digest(
        ((name, tensor.shape, [tensor]) for name, tensor in sorted(source.tensors().items())),
        config.semantic(),
    )
    return LoadedModel(
        name=RANDOM_TINY,
        model=model,
        tokenizer=tokenizer,
        fingerprints=Fingerprints(
            tokenizer=tokenizer.digest,
            weights=weights,
            numerics_id=_id(dtype, numerics),
        ),
        eos_token_ids=(eos,),
        numerics=numerics,
    )


def _load_files(
    files: ModelFiles,
    numerics: Numerics,
    dtype: str,
    device: str,
    progress: Callable[[int, int], None] | None,
) -> LoadedModel:
    model: CausalLM | IntegerLM
    trim_heap()  # of what reading the tokenizer used: it counts in the most that a load takes
    digest = None if knows_digest(*_digested(files)) else WeightsDigest(_semantic(files))
    if numerics is INTEGER:
        model = _rounded(files, device, progress, digest)
    else:
        model = _built(files, numerics, dtype, device)
        tied_head = files.config.tie_word_embeddings
        files.checkpoint.load_into(
            model.tensors(), tied_head=tied_head, progress=progress, digest=digest
        )
    model.num_token_ids = files.tokenizer.vocab_size
    trim_heap()  # of what rounding used meanwhile
    model.warm_up()
    trim_heap()  # of what packing used
    logger.debug("the weights are in memory")
    return LoadedModel(
        name=files.name,
        model=model,
        tokenizer=files.tokenizer,
        fingerprints=_fingerprints(files, _id(dtype, numerics), digest),
        eos_token_ids=files.eos_token_ids,
        numerics=numerics,
        chat_template=files.chat_template,
        sampling_defaults=files.sampling_defaults,
    )


def _id(dtype: str, numerics: Numerics) -> str:
    return numerics_id("integer" if numerics is INTEGER else dtype, numerics=numerics)


def _check_integers(config: ModelConfig, device: str) -> None:
    """Where torch computes integers, look whether it does so to the bit.

    Raises:
        ModelError: it does not.
    """
    place = torch.device(device)
    if serving_kernels(config, place) is None:
        check_bits(place)


def _rounded(
    files: ModelFiles,
    device: str,
    progress: Callable[[int, int], None] | None,
    digest: WeightsDigest | None,
) -> IntegerLM:
    """Round a checkpoint's weights, one layer after another.

    Raises:
        ModelError: it does not fit its config, or there is no memory for it.
    """
    _check_integers(files.config, device)
    tied_head = files.config.tie_word_embeddings
    take, rounded = files.checkpoint.taker(
        files.shapes, tied_head=tied_head, progress=progress, digest=digest
    )
    try:
        return IntegerLM(files.config, take, device=torch.device(device), rounded=rounded)
    except (RuntimeError, MemoryError) as error:
        raise _no_memory(files, device, 1, "integers", error) from error


def _built(files: ModelFiles, numerics: Numerics, dtype: str, device: str) -> CausalLM:
    """Allocate a model's weights.

    Raises:
        ModelError: the device has no memory for them.
    """
    kind = DTYPES[dtype]
    try:
        return CausalLM(files.config, numerics, dtype=kind, device=torch.device(device))
    except (RuntimeError, MemoryError) as error:  # torch's, on every device
        raise _no_memory(files, device, kind.itemsize, dtype, error) from error


def _no_memory(
    files: ModelFiles, device: str, num_bytes: int, kind: str, error: Exception
) -> ModelError:
    size_bytes = sum(t.numel() for t in files.shapes.values()) * num_bytes
    reason = shorten(str(error), 100, placeholder=" ...")
    return ModelError(
        f"there is no memory on {device} for the weights of {files.name} "
        f"({-(-size_bytes >> 20)} MiB as {kind}): {reason}; free memory, or use a smaller "
        "model or a smaller dtype"
    )


def _fingerprints(
    files: ModelFiles, numerics_id: str, digest: WeightsDigest | None = None
) -> Fingerprints:
    """Return a checkpoint's fingerprints; `digest`: of its weights as they were loaded."""

    def computed() -> str:
        known = None if digest is None else digest.of(files.shapes)
        return known or weights_digest(files.checkpoint.in_parts(files.shapes), _semantic(files))

    return Fingerprints(
        tokenizer=files.tokenizer.digest,
        chat_template=text_digest(files.settings.chat_template),
        weights=cached_digest(*_digested(files), computed),
        numerics_id=numerics_id,
    )


def _digested(files: ModelFiles) -> tuple[str, tuple[Path, ...]]:
    """Return what the digest of a checkpoint's weights is kept by."""
    return json.dumps(["weights", 1, _semantic(files)]), files.checkpoint.files


def _semantic(files: ModelFiles) -> dict[str, object]:
    return files.config.semantic() | files.checkpoint.packing()
