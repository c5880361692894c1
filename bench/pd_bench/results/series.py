"""Optional parts of a result: single requests over time, the cloud's load, capacity.

All of it is optional and bounded, so that a document stays readable however long its trace is.
"""

from collections.abc import Iterable, Sequence

from pd_bench.results.document_part import DocumentPart

__all__ = [
    "MAX_LOAD_POINTS",
    "MAX_TIMELINES",
    "CapacityCurve",
    "CapacityPoint",
    "LoadPoint",
    "LoadSeries",
    "Timeline",
    "sample_rows",
]

MAX_TIMELINES = 12
"""Most rows whose requests are kept token by token, in every scheme."""

MAX_LOAD_POINTS = 512
"""Most points of a scheme's load over time; in a longer run they are further apart."""


class Timeline(DocumentPart):
    """One request token by token. Instants are seconds since its scheduled arrival.

    Attributes:
        id: index of its row among the replayed ones.
        scheme: the scheme it ran in.
        repeat: which pass over the trace.
        prompt_tokens: length of its prompt.
        arrived_at_s: when each token was available; may have more tokens than were shown.
        shown_at_s: when each was shown.
        sources: one letter a shown token: "c" from the cloud, "d" from the device.
    """

    id: int
    scheme: str
    repeat: int
    prompt_tokens: int
    arrived_at_s: tuple[float, ...]
    shown_at_s: tuple[float, ...]
    sources: str


class LoadPoint(DocumentPart):
    """The cloud at one moment.

    Attributes:
        at_s: seconds since the pass began.
        running: requests holding a slot.
        waiting: requests queued.
    """

    at_s: float
    running: int
    waiting: int


class CapacityPoint(DocumentPart):
    """One arrival rate and its outcome.

    Attributes:
        rate_per_s: requests a second.
        kept: share of requests whose promise was kept, of 1.
        at_most: the rate was abandoned as too many promises were broken; `kept` is an upper bound.
    """

    rate_per_s: float
    kept: float
    at_most: bool = False


class CapacityCurve(DocumentPart):
    """How many requests a second a cloud carries under one scheme.

    Attributes:
        regime: what bounds it, in words ("slots", "compute").
        capacity_per_s: the highest rate found that keeps the promise for `target` of requests;
            0 when none does.
        bounded: False if no rate tried broke the promise: the capacity is then above this one.
        target: the share of promises to keep, of 1.
        points: every rate tried, ascending.
        none_because: what breaks the promise even at the lowest rate; None if a rate keeps it.
    """

    regime: str
    capacity_per_s: float
    bounded: bool = True
    target: float = 0.99
    points: tuple[CapacityPoint, ...] = ()
    none_because: str | None = None


class LoadSeries:
    """Collects a load over time in bounded memory: when full, it drops every second point."""

    def __init__(self, max_points: int = MAX_LOAD_POINTS) -> None:
        self._max_points = max_points
        self._points: list[LoadPoint] = []
        self._stride = 1
        self._seen = 0

    def add(self, at_s: float, running: int, waiting: int) -> None:
        """Add one moment; they must come in order."""
        if self._seen % self._stride == 0:
            self._points.append(LoadPoint(at_s=at_s, running=running, waiting=waiting))
            if len(self._points) == self._max_points:
                del self._points[1::2]
                self._stride *= 2
        self._seen += 1

    @property
    def points(self) -> tuple[LoadPoint, ...]:
        """The kept points, evenly thinned."""
        return tuple(self._points)


def sample_rows(ids: Iterable[int], max_rows: int = MAX_TIMELINES) -> Sequence[int]:
    """Return at most `max_rows` of the row ids, evenly spread and reproducible."""
    ordered = sorted(set(ids))
    if len(ordered) <= max_rows:
        return ordered
    last = len(ordered) - 1
    return [ordered[round(i * last / (max_rows - 1))] for i in range(max_rows)]
