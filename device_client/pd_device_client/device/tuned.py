"""The tuning of a device's engine: kept from an earlier start, or measured."""

import logging
import os
from dataclasses import replace

import torch

from pd_core.checkpoints.loading import LoadedModel
from pd_core.host.cpu import cpu_description, num_cores
from pd_core.identity.numerics import INTEGER
from pd_core.integer.kernel_library import kernel_library
from pd_device_client.device.manners import Manners
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.engine.tuning import Tuning, keep_tuning, kept_tuning

__all__ = ["speeds_key", "tuned"]

logger = logging.getLogger(__name__)


def tuned(
    engine: TorchLocalEngine,
    loaded: LoadedModel,
    num_threads: int,
    *,
    fixed: bool,
    manners: Manners | None,
) -> Tuning:
    """Return how the engine runs best here; may take seconds.

    What was measured beside a busy program is measured again, once, at a start without one.

    Args:
        engine: runs the passes.
        loaded: its model.
        num_threads: of the engine so far.
        fixed: the user wants that number; otherwise fewer are tried too.
        manners: knows whether other programs are busy; None: it is not asked.
    """
    most = None if fixed else num_cores()
    key = speeds_key(loaded, [num_threads, most])
    found = None if key is None else kept_tuning(key)
    if found is not None and (found.calm or not _calm(manners)):
        return found
    measured = engine.measure(most)
    tuning = replace(measured, calm=found is not None or _calm(manners))
    logger.debug("threads for prefill and decode: %s, of %s", tuning.threads, tuning.times)
    if key is not None:
        keep_tuning(key, tuning)
    return tuning


def speeds_key(loaded: LoadedModel, more: list[object]) -> list[object] | None:
    """Return everything that a model's speed depends on here; None if the CPU is unknown.

    Args:
        loaded: the model.
        more: what else it depends on, such as threads.
    """
    cpu = cpu_description()
    if cpu is None:
        return None
    numerics: list[object] = [
        loaded.numerics.reproducible,
        loaded.numerics.isa,
        loaded.numerics.packed,
    ]
    if loaded.numerics is INTEGER:
        numerics += [kernel_library() is not None, os.environ.get("PD_KERNEL")]
    return [cpu, torch.__version__, *more, numerics, loaded.fingerprints.weights]


def _calm(manners: Manners | None) -> bool:
    if manners is None:
        return True
    manners.most_threads()
    return manners.calm
