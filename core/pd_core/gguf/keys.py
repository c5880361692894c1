"""A header's keys by name and kind; whatever is of another kind is refused by its name."""

from collections.abc import Mapping
from reprlib import repr as _short  # a file may hold a value of megabytes

from pd_core.errors import ModelError
from pd_core.gguf.byte_reader import Value

__all__ = ["Keys"]


class Keys:
    """The values of a header.

    Args:
        values: by name.
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def is_value(self, name: str, value: object) -> bool:
        """Whether a key has a value of the same kind and number."""
        found = self._values.get(name)
        return type(found) is type(value) and found == value

    def whole(self, name: str, default: int | None = None) -> int:
        """Return a whole number.

        Raises:
            ModelError: it is missing and there is no default, or it is none.
        """
        value = self._found(name, default)
        if type(value) is not int:
            raise ModelError(f"the key {name} is {_short(value)}; it must be a whole number")
        return value

    def real(self, name: str, default: float | None = None) -> float:
        """Return a number.

        Raises:
            ModelError: it is missing and there is no default, or it is none.
        """
        value = self._found(name, default)
        if type(value) not in (int, float):
            raise ModelError(f"the key {name} is {_short(value)}; it must be a number")
        return float(value)  # type: ignore[arg-type]  # it is one of these

    def flag(self, name: str, default: bool) -> bool:
        """Return a yes or no.

        Raises:
            ModelError: it is none.
        """
        value = self._found(name, default)
        if type(value) is not bool:
            raise ModelError(f"the key {name} is {_short(value)}; it must be true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text.

        Raises:
            ModelError: it is missing and there is no default, or it is none.
        """
        value = self._found(name, default)
        if not isinstance(value, str):
            raise ModelError(f"the key {name} is {_short(value)}; it must be text")
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts.

        Raises:
            ModelError: it is missing, or no such list.
        """
        value = self._found(name, None)
        if not isinstance(value, list) or (value and not isinstance(value[0], str)):
            raise ModelError(f"the key {name} is {_short(value)}; it must be a list of texts")
        return value  # type: ignore[return-value]  # all items of a list are of one kind

    def numbers(self, name: str) -> list[float]:
        """Return a list of numbers.

        Raises:
            ModelError: it is missing, or no such list.
        """
        value = self._found(name, None)
        if not isinstance(value, list) or (value and type(value[0]) not in (int, float)):
            raise ModelError(f"the key {name} is {_short(value)}; it must be a list of numbers")
        return value  # type: ignore[return-value]  # all items of a list are of one kind

    def same_whole(self, name: str, default: int) -> int:
        """Return a whole number that may be given for each layer, if it is the same for all.

        Raises:
            ModelError: it differs between layers, or is none.
        """
        value = self._values.get(name, default)
        if isinstance(value, list) and value:
            if any(item != value[0] for item in value):
                raise ModelError(
                    f"the key {name} is {_short(value)}: not the same in every layer, which is not "
                    "supported; use another model"
                )
            value = value[0]
        if type(value) is not int:
            raise ModelError(f"the key {name} is {_short(value)}; it must be a whole number")
        return value

    def _found(self, name: str, default: Value | None) -> Value:
        value = self._values.get(name, default)
        if value is None:
            raise ModelError(f"the key {name} is missing, so this is no whole language model")
        return value
