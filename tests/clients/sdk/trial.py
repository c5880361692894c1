"""What every client's script has in common: it tries each feature at each device, and tells all.

A script runs in the clients' own environment, so it imports nothing of this project.
"""

import json
import sys
from collections.abc import Callable, Mapping

from pydantic import BaseModel

__all__ = ["HELLO", "KEY", "LIMIT", "PERSON", "Person", "look_up", "try_all"]

KEY = "none"
HELLO = "Tell me in a few sentences what a river is, where it comes from and where it goes."
PERSON = "Ada Lovelace was 36 years old and wrote programs. Who is it?"
LIMIT = 24


class Person(BaseModel):
    """A person in a text."""

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
