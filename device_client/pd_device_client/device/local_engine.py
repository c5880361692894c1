"""The local engine that the settings ask for, with its model loaded."""

from contextlib import suppress
from dataclasses import dataclass, field

import torch

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import EngineError
from pd_core.host.cpu import cpu_description
from pd_core.speculation.speculation import Speculation
from pd_device_client.contract.ports import LocalEngine
from pd_device_client.contract.progress import Progress
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.engine.llama_cpp_loading import load_llama_cpp
from pd_device_client.engine.memory import check_memory
from pd_device_client.engine.served_model import ServedModel
from pd_device_client.engine.torch_engine import TorchLocalEngine

__all__ = ["LoadedEngine", "load_engine"]


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine that is ready.

    Attributes:
        served: its model's names, text and limits.
        speed_key: everything that its speed depends on; None if the CPU is unknown.
        speculation: the account of its guesses.
    """

    served: ServedModel
    engine: LocalEngine
    speed_key: list[object] | None
    speculation: Speculation = field(default_factory=lambda: Speculation(0))


def load_engine(settings: DeviceSettings, progress: Progress | None) -> LoadedEngine:
    """Load the model into the engine that runs it.

    Args:
        settings: what to run.
        progress: called with the weights' bytes.

    Raises:
        ModelError: the model cannot be loaded.
        ConfigError: the engine's extra is not installed.
    """
    load = _llama_cpp if settings.engine == "llama-cpp" else _torch
    loaded = load(settings, progress)
    if loaded.served.chat_template is not None:
        with suppress(EngineError):  # told to whoever needs it; other prompts can be answered
            loaded.served.chat_template.check()
    return loaded


def _torch(settings: DeviceSettings, progress: Progress | None) -> LoadedEngine:
    check_memory(settings.model, settings.kept_kv_bytes, settings.numerics)
    if settings.num_threads is not None:
        # Loading probes the numerics, which depend on the number of threads.
        torch.set_num_threads(settings.num_threads)
    loaded = load_model(
        settings.model,
        fast=settings.fast_numerics,
        numerics=settings.numerics,
        progress=progress,
    )
    engine = TorchLocalEngine(
        loaded,
        num_threads=settings.num_threads,
        kept_kv_bytes=settings.kept_kv_bytes,
        speculate=settings.speculate,
    )
    threads = settings.num_threads or torch.get_num_threads()
    speed_key = _torch_key(loaded, threads, engine.chunk_tokens)
    return LoadedEngine(loaded, engine, speed_key, engine.speculation)


def _torch_key(loaded: LoadedModel, threads: int, chunk_tokens: int) -> list[object] | None:
    numerics = [loaded.numerics.reproducible, loaded.numerics.isa, loaded.numerics.packed]
    weights = loaded.fingerprints.weights
    return _speed_key(torch.__version__, threads, chunk_tokens, numerics, weights)


def _llama_cpp(settings: DeviceSettings, progress: Progress | None) -> LoadedEngine:
    engine, about = load_llama_cpp(
        settings.model,
        context_tokens=settings.context_tokens,
        num_slots=settings.local_seqs,
        num_threads=settings.num_threads,
        kept_kv_bytes=settings.kept_kv_bytes,
        progress=progress,
    )
    return LoadedEngine(engine.served, engine, _speed_key("llama-cpp", *about))


def _speed_key(*about: object) -> list[object] | None:
    cpu = cpu_description()
    return None if cpu is None else [cpu, *about]
