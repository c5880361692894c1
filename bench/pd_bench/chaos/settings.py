"""What `pd-bench chaos` takes, checked before anything starts."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from pd_core.settings.option import Option

__all__ = ["ChaosSettings"]

_FIDELITIES = ("simulated", "real")


@dataclass(frozen=True, slots=True)
class ChaosSettings:
    """Which requests are disturbed, and how.

    Attributes:
        fidelity: "simulated": real sessions on a virtual clock, with a simulated cloud; "real":
            server processes, sockets, a proxy between them, and a real model.
        only: the number of the one request to run again; None: all.
    """

    requests: Annotated[int, Ge(1), Le(10_000_000), Option("Requests to disturb.")] = 1000
    seed: Annotated[int, Ge(0), Option("Of all faults, and where they strike.")] = 1
    fidelity: Annotated[
        Literal["simulated", "real"],
        Option(
            "simulated: sessions on a virtual clock; real: processes, sockets and a proxy.",
            choices=_FIDELITIES,
        ),
    ] = "simulated"
    only: Annotated[
        int | None, Ge(0), Option("Run the request with this number alone, as it was drawn.")
    ] = None
