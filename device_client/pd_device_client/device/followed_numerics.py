"""Computing as the cloud does, where that is what makes their answers equal."""

import asyncio
import logging
from dataclasses import replace

from pd_core.checkpoints.any_model import read_model_files
from pd_core.errors import ModelError, PdError
from pd_core.identity.fingerprint import numerics_id
from pd_core.identity.numerics import INTEGER
from pd_core.integer.kernel_library import kernel_library
from pd_core.store.model_names import RANDOM_TINY, model_path
from pd_device_client.contract.ports import CloudLink, NeedsModel
from pd_device_client.device.settings import DeviceSettings

__all__ = ["following"]

logger = logging.getLogger(__name__)

_WAIT_S = 2.0  # for the cloud's card, before the model is loaded without it


async def following(settings: DeviceSettings, link: CloudLink | None) -> DeviceSettings:
    """Return settings that compute integers if the cloud does, where they leave that open.

    Without the native kernels "auto" takes float32, which is quicker than integers by torch, but
    then no answer could be promised to equal the cloud's. With them nobody is asked, as both sides
    choose alike.

    Args:
        settings: what the device runs.
        link: the cloud, which is asked once; None: there is none.
    """
    is_open = settings.numerics == "auto" and settings.engine == "torch"
    if not is_open or settings.fast_numerics or kernel_library() is not None:
        return settings
    if link is None or isinstance(link, NeedsModel):  # which promises no equal answers
        return settings
    try:
        async with asyncio.timeout(_WAIT_S):
            card = (await link.info()).model
    except (PdError, TimeoutError) as error:
        logger.debug("the cloud does not say how it computes (%s)", type(error).__name__)
        return settings
    if card.fingerprints.numerics_id != numerics_id("integer", numerics=INTEGER):
        return settings
    if not await asyncio.to_thread(_has_integers, settings.model):
        return settings
    logger.info("the cloud computes integers, so this device does too, by torch")
    return replace(settings, numerics="integer")


def _has_integers(model: str) -> bool:
    """Whether a model can be computed in integers; a cloud may run another one."""
    try:
        return model == RANDOM_TINY or (read_model_files(model_path(model)).config.latent is None)
    except ModelError:
        return False  # loading it says why
