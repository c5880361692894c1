"""The page of metrics lists what a device exposes; counts follow outcomes."""

import inspect
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from pd_core.errors import QueueFull
from pd_core.generation import FinishReason
from pd_device_client.api.app import make_app
from pd_device_client.api.metrics import DeviceMetrics
from pd_device_client.contract.outcome import Origin, Outcome, Shown

_FILE = Path(__file__).parents[4] / "docs" / "reference" / "metrics.md"
_PAGE = _FILE.read_text(encoding="utf-8").partition("## What a device counts")[2]
_ROW = re.compile(r"^\| `(pd_\w+)` \| (\w+) \|(.*?)\|", re.MULTILINE)


def _outcome(mode: str, reason: str, **fields: object) -> Outcome:
    outcome = Outcome("r", mode, 3, 0.1)
    outcome.finish_reason = FinishReason(reason) if reason else None
    for name, value in fields.items():
        setattr(outcome, name, value)
    return outcome


def _text(gauges: bool = True) -> str:
    metrics = DeviceMetrics(
        [(name, "", lambda: 1.0) for name in _gauges()] if gauges else [],
    )
    shown = [Shown(i, 5, "x", Origin.DEVICE, 0.2 + 0.1 * i) for i in range(3)]
    metrics.answered(_outcome("pd-device", "stop", handoff_position=2, cloud_tokens=2, shown=shown))
    metrics.answered(_outcome("pd-device", "length", notes=["cloud: it broke", "a word"]))
    metrics.answered(_outcome("device-only", ""))  # never began
    metrics.refused(QueueFull("full"))
    return metrics.render().decode()


def _gauges() -> list[str]:
    """The gauges that the application hands over, by their names."""
    return re.findall(r'\("(pd_\w+)", "', inspect.getsource(make_app))


def test_the_page_and_the_registry_agree() -> None:
    listed = {
        name: (kind, set(re.findall(r"`(\w+)`[:;]", labels)))
        for name, kind, labels in _ROW.findall(_PAGE)
    }
    exposed = {}
    for family in text_string_to_metric_families(_text()):
        if not family.name.endswith("_created"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels}
            exposed[name] = (family.type, labels - {"le"})
    assert listed == exposed


def test_counts_follow_outcomes() -> None:
    text = _text(gauges=False)
    assert 'pd_answers_total{mode="pd-device",reason="stop"} 1.0' in text
    assert 'pd_handoff_total{outcome="handed_over"} 1.0' in text
    assert 'pd_handoff_total{outcome="not_needed"} 1.0' in text
    assert 'pd_fallback_total{reason="cloud_failed"} 1.0' in text
    assert 'pd_requests_refused_total{error="QueueFull"} 1.0' in text
    assert "pd_cloud_tokens_total 2.0" in text
    assert "pd_gap_seconds_count 2.0" in text
    assert "device-only" not in text
