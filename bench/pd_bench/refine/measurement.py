"""One run of `pd-bench refine`: load the model, judge quality, time the engine."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pd_bench.refine.handoff_time import ReadyTime, measure_ready_times
from pd_bench.refine.quality import Quality, measure_quality
from pd_bench.refine.settings import RefineSettings
from pd_bench.refine.texts import document, passages
from pd_core.checkpoints.loading import LoadedModel, load_model

__all__ = ["Measured", "measure_refined"]


@dataclass(frozen=True, slots=True)
class Measured:
    """Attributes:
    model: its name.
    numerics: their id.
    quality: how refined prompts did.
    times: when the device is ready.
    """

    model: str
    numerics: str
    quality: Quality
    times: list[ReadyTime]


async def measure_refined(settings: RefineSettings, tell: Callable[[str], None]) -> Measured:
    """Run the measurement.

    Raises:
        ModelError: the model cannot be loaded.
        ConfigError: the text or the model's context is too short.
    """
    tell("loading the model")
    loaded = await asyncio.to_thread(load_model, settings.model, numerics=settings.numerics)
    quality = await asyncio.to_thread(_quality, loaded, settings, tell)
    times: list[ReadyTime] = []
    if settings.rounds:
        tell("timing the local engine")
        text = document(settings.text)
        [passage] = passages(loaded, text, 1, settings.prompt_tokens, 1)
        times = await measure_ready_times(loaded, passage.prompt, settings)
    return Measured(loaded.name, loaded.fingerprints.numerics_id, quality, times)


def _quality(loaded: LoadedModel, settings: RefineSettings, tell: Callable[[str], None]) -> Quality:
    torch.set_num_threads(settings.num_threads)
    with torch.inference_mode():
        return measure_quality(loaded, settings, tell)
