"""The parser of an answer in which everything is text."""

from pd_device_client.api.tools.parts import Part, TextPart

__all__ = ["PlainParts"]


class PlainParts:
    """Takes all text as it is."""

    def push(self, text: str) -> list[Part]:
        """Return the text as a part."""
        return [TextPart(text)] if text else []

    def end(self) -> list[Part]:
        """Return nothing, as nothing is held back."""
        return []
