"""The local engine that the settings ask for, with its model loaded."""

from contextlib import suppress
from dataclasses import dataclass, field

import torch

from pd_core.checkpoints.loading import load_model
from pd_core.checkpoints.memory_need import check_memory
from pd_core.errors import EngineError
from pd_core.grammar.grammars import Grammars
from pd_core.host.cpu import cpu_description
from pd_core.host.low_priority import step_back
from pd_core.speculation.speculation import Speculation
from pd_device_client.contract.ports import LocalEngine
from pd_device_client.contract.progress import Progress
from pd_device_client.device.manners import Manners
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.device.tuned import speeds_key, tuned
from pd_device_client.engine.llama_cpp_loading import load_llama_cpp
from pd_device_client.engine.served_model import ServedModel
from pd_device_client.engine.threads import Threads
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.engine.tuning import chunk_for

__all__ = ["LoadedEngine", "load_engine"]


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine that is ready.

    Attributes:
        served: its model's names, text and limits.
        speed_key: everything that its speed depends on; None if the CPU is unknown.
        speculation: the account of its guesses.
        grammars: compiles the forms of its answers.
        threads: how it can be told to use fewer; None: it cannot.
    """

    served: ServedModel
    engine: LocalEngine
    speed_key: list[object] | None
    grammars: Grammars
    speculation: Speculation = field(default_factory=lambda: Speculation(0))
    threads: Threads | None = None


def load_engine(
    settings: DeviceSettings,
    threads: int,
    manners: Manners | None,
    progress: Progress | None,
) -> LoadedEngine:
    """Load the model into the engine that runs it; takes long.

    Args:
        settings: what to run.
        threads: of torch, if the settings do not say.
        manners: knows whether other programs are busy; None: nobody asks.
        progress: called with the weights' bytes.

    Raises:
        ModelError: the model cannot be loaded.
        ConfigError: the engine's extra is not installed.
    """
    if settings.polite:
        step_back()  # the threads that torch and the kernels start here serve the engine too
    if settings.engine == "llama-cpp":
        loaded = _llama_cpp(settings, progress)
    else:
        loaded = _torch(settings, settings.num_threads or threads, manners, progress)
    if loaded.served.chat_template is not None:
        with suppress(EngineError):  # told to whoever needs it; other prompts can be answered
            loaded.served.chat_template.check()
    return loaded


def _torch(
    settings: DeviceSettings, threads: int, manners: Manners | None, progress: Progress | None
) -> LoadedEngine:
    files = check_memory(
        settings.model,
        settings.kept_kv_bytes,
        settings.numerics,
        fast=settings.fast_numerics,
    )
    torch.set_num_threads(threads)  # loading probes the numerics, which depend on them
    loaded = load_model(
        settings.model,
        fast=settings.fast_numerics,
        numerics=settings.numerics,
        files=files,
        progress=progress,
    )
    engine = TorchLocalEngine(
        loaded,
        num_threads=threads,
        kept_kv_bytes=settings.kept_kv_bytes,
        speculate=settings.speculate,
        low_priority=settings.polite,
    )
    fixed = settings.num_threads is not None
    tuning = tuned(engine, loaded, threads, fixed=fixed, manners=manners)
    chosen = Threads(tuning)
    engine.use(chosen)
    engine.chunk_tokens = tuning.chunk_tokens
    if settings.slowed_to is not None:
        slow_tokens = chunk_for(settings.slowed_to.prefill_b_s)
        engine.chunk_tokens = min(tuning.chunk_tokens, slow_tokens)
    key = speeds_key(loaded, [*tuning.threads, engine.chunk_tokens])
    return LoadedEngine(loaded, engine, key, engine.grammars, engine.speculation, chosen)


def _llama_cpp(settings: DeviceSettings, progress: Progress | None) -> LoadedEngine:
    engine, about = load_llama_cpp(
        settings.model,
        context_tokens=settings.context_tokens,
        num_slots=settings.local_seqs,
        num_threads=settings.num_threads,
        kept_kv_bytes=settings.kept_kv_bytes,
        progress=progress,
    )
    return LoadedEngine(engine.served, engine, _speed_key("llama-cpp", *about), engine.grammars)


def _speed_key(*about: object) -> list[object] | None:
    cpu = cpu_description()
    return None if cpu is None else [cpu, *about]
