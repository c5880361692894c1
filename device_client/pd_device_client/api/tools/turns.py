"""What was said in a chat so far, calls of functions and their results included."""

from dataclasses import dataclass

__all__ = ["Call", "Turn"]


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the model made.

    Attributes:
        call_id: its id.
        name: the function's name.
        arguments: the text that the model wrote, usually a JSON object.
    """

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One message.

    Attributes:
        role: "system", "user", "assistant" or "tool".
        text: what it says; None: an assistant's that has only calls.
        calls: an assistant's.
        answers: the call whose result a tool's message is.
        reasoning: what the assistant thought, if it is given.
    """

    role: str
    text: str | None
    calls: tuple[Call, ...] = ()
    answers: Call | None = None
    reasoning: str | None = None

    @property
    def num_characters(self) -> int:
        """Characters of all its texts."""
        texts = [self.text or "", self.reasoning or "", *(call.arguments for call in self.calls)]
        return sum(map(len, texts))
