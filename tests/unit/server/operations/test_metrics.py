"""The page of metrics lists what a server exposes: no more, no less."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from pd_core.errors import CapacityError, InvalidRequest, NotReady, QueueFull
from pd_core.generation import Finished, FinishReason, Load
from pd_server.operations.metrics import Metrics

_FILE = Path(__file__).parents[4] / "docs" / "reference" / "metrics.md"
_PAGE = _FILE.read_text(encoding="utf-8").partition("## What a device counts")[0]
_ROW = re.compile(r"^\| `(pd_\w+)` \| (\w+) \|(.*?)\|", re.MULTILINE)


def _exposed(metrics: Metrics) -> dict[str, tuple[str, set[str]]]:
    """Each metric's name as it is scraped, with its type and labels."""
    exposed = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        if family.name.endswith("_created"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        exposed[name] = (family.type, labels - {"le"})
    return exposed


_REASONS = set(FinishReason) - {FinishReason.ERROR}  # a stream that fails has no last report


def _metrics() -> Metrics:
    metrics = Metrics(lambda: Load(tokens_generated=7))
    for reason in _REASONS:
        metrics.finished(Finished(reason, 1, 0.1, 0.2, 0.3, 4.0))
    metrics.error(QueueFull("full"))
    metrics.error(InvalidRequest("bad"))
    metrics.error(ValueError("a bug"))
    metrics.used("anna", 5, 7, 0.25)
    metrics.over_quota("anna")
    return metrics


def test_the_page_and_the_registry_agree() -> None:
    rows = _ROW.findall(_PAGE)
    listed = {name: (kind, set(re.findall(r"`(\w+)`:", labels))) for name, kind, labels in rows}
    assert len(listed) == len(rows) > 0
    assert listed == _exposed(_metrics())


def test_the_page_names_every_value_of_the_labels() -> None:
    (reasons,) = re.findall(r"`reason`: ([^|]*)", _PAGE)
    assert set(re.findall(r"`(\w+)`", reasons)) == {reason.value for reason in _REASONS}
    (refusals,) = re.findall(r"pd_requests_refused_total` \| counter \| `error`: ([^|]*)", _PAGE)
    assert set(re.findall(r"`(\w+)`", refusals)) == {
        error.__name__ for error in CapacityError.__subclasses__() if error is not NotReady
    }  # a server that loads answers no call


def test_errors_are_counted_by_their_class() -> None:
    text = _metrics().render().decode()
    assert 'pd_requests_refused_total{error="QueueFull"} 1.0' in text
    assert 'pd_requests_failed_total{error="InvalidRequest"} 1.0' in text
    assert 'pd_requests_failed_total{error="InternalError"} 1.0' in text
