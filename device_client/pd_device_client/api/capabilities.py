"""What a device's model can be asked for, as the list of models says it."""

from pd_device_client.api.settings import AnswerSettings
from pd_device_client.api.tools.answer_parser import AnswerParsing
from pd_device_client.device.device import Device

__all__ = ["capabilities"]


def capabilities(device: Device, settings: AnswerSettings, *, chat: bool) -> list[str]:
    """Return the words for what the device can do.

    Args:
        device: the device.
        settings: the defaults for requests.
        chat: whether its model knows roles.
    """
    parsing = AnswerParsing(
        device.loaded,
        None,
        formed=False,
        tool_parser=settings.tool_parser,
        reasoning=settings.reasoning_parser,
    )
    told = {
        "completion": True,
        "chat": chat,
        "tools": chat,
        "structured_outputs": device.grammars is not None,
        "logprobs": True,
        "reasoning": chat and parsing.splits_thoughts,
    }
    return [word for word, can in told.items() if can]
