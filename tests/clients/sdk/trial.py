"""What every client's script has in common: it tries each feature at each device, and tells all.

A script runs in the clients' own environment, so it imports nothing of this project.
"""

import json
import sys
from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict

__all__ = ["HELLO", "KEY", "LIMIT", "PERSON", "Person", "look_up", "try_all"]

KEY = "none"
# Long enough that a device has its prompt read well after the cloud.
_PAGE = (
    "A river is a stream of water that flows to another river, to a lake or to the sea. It begins "
    "at a spring, where the water of rain and snow comes out of the ground, or under a glacier. "
    "On its way it takes in other streams, wears down stones, and carries sand and mud with it. "
    "In 1843 Ada Lovelace, who was 27 years old, wrote notes on a machine that could not yet be "
    "built. One of them told it step by step what to compute. Many call it the first program. "
)
HELLO = f"{_PAGE}Tell me in a few sentences what a river is, and where it comes from."
PERSON = f"{_PAGE}Who wrote notes on a machine, and how old was she?"
LIMIT = 16


class Person(BaseModel):
    """A person in a text."""

    model_config = ConfigDict(extra="forbid")

    name: str
    age: int


def look_up(city: str) -> str:
    """Return the weather of a city."""
    return f"It is sunny in {city}."


def try_all(uses: Mapping[str, Callable[[str, str], str]]) -> None:
    """Try each feature at each device; print one line of JSON for each feature.

    The command line has the model's name and the devices' addresses.

    Args:
        uses: for each feature a function of base URL and model that returns the answer.
    """
    model, *urls = sys.argv[1:]
    for feature, use in uses.items():
        answers, error = list[str](), None
        try:
            for url in urls:
                answers.append(use(url, model))
        except Exception as failed:  # a client may raise anything, and all of it is to be told
            error = f"{type(failed).__name__}: {failed}"[:2000]
        told = {"feature": feature, "answers": answers, "error": error}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
