"""The manifests: strictly valid in every overlay, and in step with the program."""

import inspect
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pd_device_client.cloud.grpc_link import GrpcCloudLink

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu", "vllm")

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, for its kustomize, is not installed"
)


@cache
def _built(overlay: str) -> tuple[dict[str, Any], ...]:
    """Return what would be applied."""
    done = subprocess.run(
        ["kubectl", "kustomize", FOLDER / overlay],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def _one(overlay: str, kind: str, name: str = "pd-server") -> dict[str, Any]:
    (found,) = (
        each
        for each in _built(overlay)
        if each["kind"] == kind and each["metadata"]["name"] == name
    )
    return found


def _pod(overlay: str) -> dict[str, Any]:
    pod: dict[str, Any] = _one(overlay, "Deployment")["spec"]["template"]["spec"]
    return pod


def _server(overlay: str) -> dict[str, Any]:
    (container,) = _pod(overlay)["containers"]
    assert isinstance(container, dict)
    return container


def _environment(container: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in container["env"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid_to_the_last_field(overlay: str) -> None:
    kubernetes = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is in the extra dev"
    )
    for each in _built(overlay):
        kubernetes.validate(each, kubernetes.latest_version(), strict=True)


def test_a_field_that_is_not_there_would_be_found() -> None:
    kubernetes = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is in the extra dev"
    )
    deployment = yaml.safe_load(yaml.safe_dump(_one("cpu", "Deployment")))
    deployment["spec"]["template"]["spec"]["terminationGraceSeconds"] = 5
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(deployment, kubernetes.latest_version(), strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_one_namespace(overlay: str) -> None:
    for each in _built(overlay):
        if each["kind"] != "Namespace":
            assert each["metadata"]["namespace"] == "pd-device", each["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_stop_waits_for_the_longest_stream(overlay: str) -> None:
    server = _server(overlay)
    drain_s = float(_environment(server)["PD_SERVER_DRAIN_S"])
    parameters = inspect.signature(GrpcCloudLink.__init__).parameters
    assert drain_s >= parameters["stream_timeout_s"].default
    pre_stop_s = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace_s = _pod(overlay)["terminationGracePeriodSeconds"]
    # What is left is for the end of the process itself: at most 15 s for the engine's thread.
    assert grace_s >= pre_stop_s + drain_s + 20


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_the_server_answers_without_a_key(overlay: str) -> None:
    server = _server(overlay)
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert ports == {"grpc": 50051, "http": 8080}
    for probe, path in (("startup", "readyz"), ("readiness", "readyz"), ("liveness", "healthz")):
        asked = server[f"{probe}Probe"]["httpGet"]
        assert asked == {"path": f"/{path}", "port": "http", "scheme": "HTTPS"}
    startup = server["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_has_more_rights_than_it_needs(overlay: str) -> None:
    specs = [
        each["spec"]["template"]["spec"]
        for each in _built(overlay)
        if each["kind"] in {"Deployment", "Job"}
    ]
    for spec in specs:
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 10_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any("hostPath" in volume for volume in spec["volumes"])
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "limits" in container["resources"]
            for each in container["env"]:
                assert not re.search("API_KEY$|TOKEN$|PASSWORD$", each["name"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_the_pods(overlay: str) -> None:
    labels = _one(overlay, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        _one(overlay, "Deployment")["spec"]["selector"]["matchLabels"],
        _one(overlay, "Service")["spec"]["selector"],
        _one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        _one(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
    target = _one(overlay, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "pd-server")
    assert "replicas" not in _one(overlay, "Deployment")["spec"], "the autoscaler's to say"


@pytest.mark.parametrize("overlay", ["gpu", "vllm"])
def test_the_pulled_model_is_the_served_one(overlay: str) -> None:
    (pull,) = _one(overlay, "Job", "pull-model")["spec"]["template"]["spec"]["containers"]
    wanted = {
        name: each["valueFrom"]["configMapKeyRef"]
        for container in (pull, _server(overlay))
        for each in container["env"]
        if (name := each["name"]) in {"MODEL", "PD_SERVER_MODEL"}
    }
    assert wanted["MODEL"] == wanted["PD_SERVER_MODEL"]
    (config,) = (each for each in _built(overlay) if each["kind"] == "ConfigMap")
    assert wanted["MODEL"]["name"] == config["metadata"]["name"]
    assert wanted["MODEL"]["key"] in config["data"]
    mounts = {each["name"]: each for each in _server(overlay)["volumeMounts"]}
    assert mounts["models"]["readOnly"] is True
    resources = _server(overlay)["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"


def test_every_setting_is_one_that_the_command_reads() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "pd_server", "--help"],
        env={"COLUMNS": "500", "NO_COLOR": "1", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    known = set(re.findall(r"env var: (PD_\w+)", told))
    for overlay in OVERLAYS:
        used = {name for name in _environment(_server(overlay)) if name.startswith("PD_")}
        assert used <= known, overlay
