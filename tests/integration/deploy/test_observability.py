"""Dashboard, alerts and autoscaler ask only for metrics that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from pd_core.errors import error_class
from pd_core.generation import Load
from pd_device_client.api.metrics import DeviceMetrics
from pd_server.operations.metrics import Metrics

DEPLOY = Path(__file__).parents[3] / "deploy"
FOLDER = DEPLOY / "observability"
DASHBOARD: dict[str, Any] = json.loads(
    (FOLDER / "grafana" / "dashboards" / "pd-device.json").read_text(encoding="utf-8")
)
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
_NAME = re.compile(r"\bpd_\w+")
_SELECTOR = re.compile(r"\{([^}]*)\}")


def _samples(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Every name that can be asked for, with its labels."""
    found: dict[str, set[str]] = {}
    declared = {
        each._name: set(each._labelnames)
        for each in registry._collector_to_names
        if isinstance(each, MetricWrapperBase)
    }
    for family in registry.collect():
        suffixes = {
            "counter": ["_total"],
            "histogram": ["_bucket", "_sum", "_count"],
        }.get(family.type, [""])
        labels = declared.get(family.name, set())
        found |= {family.name + suffix: labels for suffix in suffixes}
    return found


@pytest.fixture(scope="module")
def server() -> dict[str, set[str]]:
    return _samples(Metrics(Load)._registry)


@pytest.fixture(scope="module")
def device() -> dict[str, set[str]]:
    return _samples(DeviceMetrics([])._registry)


def _expressions(panels: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for panel in panels:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def _check(where: str, expression: str, known: dict[str, set[str]]) -> None:
    names = set(_NAME.findall(expression))
    assert names <= known.keys(), f"{where}: {sorted(names - known.keys())}"
    grouped = {
        label.strip()
        for labels in re.findall(r"by \(([^)]*)\)", expression)
        for label in labels.split(",")
    }
    asked = {
        part.partition("=")[0].strip(" !~")
        for selector in _SELECTOR.findall(expression)
        for part in selector.split(",")
    }
    of_all = {"instance", "job", "le"}
    labels = set().union(*(known[name] for name in names)) if names else set[str]()
    assert grouped | asked <= labels | of_all, f"{where}: {grouped | asked}"


def test_every_metric_of_the_dashboard_exists(
    server: dict[str, set[str]], device: dict[str, set[str]]
) -> None:
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(set(titles)) == len(titles)
    of_devices = titles.index("Devices that are scraped")
    for where, expression in _expressions(DASHBOARD["panels"][:of_devices]):
        _check(where, expression.replace("$__rate_interval", "5m"), server)
    for where, expression in _expressions(DASHBOARD["panels"][of_devices:]):
        _check(where, expression.replace("$__rate_interval", "5m"), device)
    (variable,) = DASHBOARD["templating"]["list"]
    _check("variable", variable["query"]["query"].replace("label_values", ""), server)


def test_what_a_server_counts_is_shown(server: dict[str, set[str]]) -> None:
    shown = {
        name
        for _, expression in _expressions(DASHBOARD["panels"])
        for name in _NAME.findall(expression)
    }
    hidden = {name for name in server if not name.endswith(("_sum", "_count", "_created"))} - shown
    assert not hidden, f"a metric that nobody can see: {sorted(hidden)}"


def test_every_metric_of_the_alerts_exists_and_each_says_what_to_do(
    server: dict[str, set[str]],
) -> None:
    for rule in ALERTS:
        _check(rule["alert"], rule["expr"], server)
        assert rule["labels"]["severity"] in {"page", "ticket", "note"}
        assert rule["annotations"].keys() == {"summary", "action"}


def test_every_error_that_an_alert_names_is_one() -> None:
    for rule in ALERTS:
        for words in re.findall(r'error=~?"([^"]*)"', rule["expr"]):
            for name in words.split("|"):
                assert name == "InternalError" or error_class(name) is not None


def test_the_autoscaler_asks_for_what_the_adapter_makes_of_metrics(
    server: dict[str, set[str]],
) -> None:
    folder = DEPLOY / "kubernetes"
    adapter = yaml.safe_load((folder / "prometheus-adapter.yaml").read_text(encoding="utf-8"))
    made = {rule["name"]["as"] for rule in adapter["rules"]["custom"]}
    scaler = yaml.safe_load((folder / "base" / "autoscaler.yaml").read_text(encoding="utf-8"))
    asked = {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]}
    assert asked == made
    for rule in adapter["rules"]["custom"]:
        names = set(_NAME.findall(rule["seriesQuery"] + rule["metricsQuery"]))
        assert names <= server.keys()


def test_grafana_finds_what_it_is_given() -> None:
    source = yaml.safe_load((FOLDER / "grafana" / "datasources" / "prometheus.yml").read_text())
    (given,) = source["datasources"]
    sources = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"] if "datasource" in panel}
    assert sources == {given["uid"]}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_alert_is_tried() -> None:
    tried = Path(__file__).with_name("alerts_test.yml").read_text(encoding="utf-8")
    assert [rule["alert"] for rule in ALERTS if rule["alert"] not in tried] == []


def test_prometheus_understands_its_files_and_alerts_fire_when_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is in Debian's package prometheus")
    commands: list[list[str | Path]] = [
        ["check", "rules", FOLDER / "alerts.yml"],
        ["check", "config", "--syntax-only", FOLDER / "prometheus.yml"],
        ["test", "rules", Path(__file__).with_name("alerts_test.yml")],
    ]
    for command in commands:
        subprocess.run([promtool, *command], check=True, timeout=30)
