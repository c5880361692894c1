"""The functions that a request offers to the model, and whether it must call one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.validated import Parameters
from pd_device_client.api.tools.schema_references import check_references

__all__ = ["MAX_TOOLS", "Function", "NamedChoice", "Offer", "Tool", "ToolChoice", "offered"]

MAX_TOOLS = 128

_Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


class Function(Parameters):
    """A function as OpenAI describes it.

    Attributes:
        name: letters, digits, and `_`, `-`, `.`.
        description: what it is for.
        parameters: the JSON schema of its arguments, an object; None: it takes none.
        strict: arguments are of the schema. They are wherever a call is asked for by `tool_choice`;
            a call that the model makes by itself is what the model writes.
    """

    name: _Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The JSON schema of the arguments."""
        if self.parameters is None:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        return {"type": "object", **self.parameters}

    @property
    def told(self) -> dict[str, Any]:
        """How a template is told of it; templates take for granted that all keys are there."""
        parameters = self.parameters or {}
        missing: dict[str, Any] = {
            name: value
            for name, value in (("type", "object"), ("properties", {}))
            if name not in parameters
        }
        function = {
            "name": self.name,
            "description": self.description or "",
            "parameters": {**missing, **parameters},
        }
        return {"type": "function", "function": function}


class Tool(Parameters):
    """A tool; only functions are taken."""

    type: Literal["function"]
    function: Function


class _Named(Parameters):
    name: str


class NamedChoice(Parameters):
    """A function that must be called."""

    type: Literal["function"]
    function: _Named


ToolChoice = Literal["none", "auto", "required"] | NamedChoice


@dataclass(frozen=True, slots=True)
class Offer:
    """What a model may call.

    Attributes:
        functions: by different names, at least one.
        required: it must call at least one.
        named: the function that it must call, once; None: it chooses.
        parallel: it may call several at once.
    """

    functions: tuple[Function, ...]
    required: bool = False
    named: Function | None = None
    parallel: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The functions' names."""
        return tuple(function.name for function in self.functions)


def offered(
    tools: Sequence[Tool] | None, choice: ToolChoice | None, parallel: bool | None
) -> Offer | None:
    """Return what a request offers; None: nothing may be called.

    Args:
        tools: `tools` of the request.
        choice: `tool_choice`; None is "auto".
        parallel: `parallel_tool_calls`; None is true.

    Raises:
        Refusal: a name stands twice, a schema is wrong, or the choice is none of the tools.
    """
    functions = tuple(tool.function for tool in tools or ())
    if not functions and choice not in (None, "none", "auto"):
        raise Refusal("tool_choice asks for a call, and there are no tools; give them", "tools")
    _check(functions)
    named = _named(functions, choice) if isinstance(choice, NamedChoice) else None
    if not functions or choice == "none":
        return None
    return Offer(functions, choice == "required", named, parallel is not False)


def _check(functions: Sequence[Function]) -> None:
    names = set[str]()
    for i, function in enumerate(functions):
        where = f"tools[{i}].function"
        if function.name in names:
            raise Refusal(
                f"{where}.name is {function.name!a}, which an earlier tool has; give each tool a "
                "name of its own",
                f"{where}.name",
            )
        names.add(function.name)
        where += ".parameters"
        if function.arguments["type"] != "object":
            raise Refusal(f"{where} is a schema of no object; arguments have names", where)
        try:
            check_references(function.arguments)
        except ValueError as error:
            raise Refusal(f"{where}: {error}", where) from error


def _named(functions: Sequence[Function], choice: NamedChoice) -> Function:
    wanted = choice.function.name
    for function in functions:
        if function.name == wanted:
            return function
    raise Refusal(
        f"tool_choice names the function {wanted[:100]!a}, which is none of the tools",
        "tool_choice",
    )
