"""Images and compose file hold to the rules: parsed and linted, nothing is built here."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).parents[3]
DOCKERFILES = sorted((REPO / "deploy").glob("*.Dockerfile"))
BIN = Path(sys.executable).parent
# What each image may contain: its own part and what that part stands on.
IMAGE_ROOTS = {
    "server": {"core", "proto", "server"},
    "vllm": {"core", "proto", "server"},
    "device": {"core", "proto", "device_client"},
    "bench": {"core", "proto", "server", "device_client", "bench"},
}


# What services keep; nothing of the host is ever written.
WRITABLE = {
    "cloud-vllm": {"vllm-cache:/cache"},
    "pull": {"models:/models"},
    "prometheus": {"prometheus:/prometheus"},
    "grafana": {"grafana:/var/lib/grafana"},
}


def _compose(*profiles: str, podman: Path) -> dict[str, Any]:
    """Return the compose file as podman-compose reads it: profiles applied, variables filled in.

    Docker forgets the default of `.env` when a profile is named; podman-compose adds to it. So the
    profiles are given by the variable, which both obey.
    """
    chosen = {"COMPOSE_PROFILES": ",".join(profiles)} if profiles else {}
    done = subprocess.run(
        [
            BIN / "podman-compose",
            "--podman-path",
            podman,
            "-f",
            REPO / "docker-compose.yml",
            "config",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=REPO,
        env={name: value for name, value in os.environ.items() if not name.startswith("PD_")}
        | chosen,
    )
    loaded = yaml.safe_load(done.stdout)
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture
def podman(tmp_path: Path) -> Path:
    """Stand in for podman itself: parsing asks it for its version and nothing else."""
    path = tmp_path / "podman"
    path.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "podman version 4.9.0"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def compose() -> dict[str, Any]:
    """The compose file as plain YAML."""
    loaded = yaml.safe_load((REPO / "docker-compose.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.heavy
def test_profiles_choose_services(podman: Path) -> None:
    def services(*profiles: str) -> set[str]:
        return set(_compose(*profiles, podman=podman)["services"])

    assert services() == services("cpu") == {"cloud"}
    assert services("gpu") == {"cloud-gpu"}
    assert services("vllm") == {"cloud-vllm", "pull"}
    assert services("cpu", "device") == {"cloud", "device"}
    assert services("replay") == {"replay"}
    assert services("cpu", "observability") == {"cloud", "prometheus", "grafana"}
    assert services("replicas") == {"cloud-1", "cloud-2", "balancer"}


def test_whichever_cloud_runs_is_called_cloud(podman: Path) -> None:
    for profile in ("gpu", "vllm"):
        service = _compose(profile, podman=podman)["services"][f"cloud-{profile}"]
        assert service["networks"] == {"default": {"aliases": ["cloud"]}}
        (gpu,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert gpu["capabilities"] == ["gpu"]


def test_vllm_starts_when_its_model_is_there(podman: Path) -> None:
    services = _compose("vllm", podman=podman)["services"]
    cloud, pull = services["cloud-vllm"], services["pull"]
    assert cloud["depends_on"] == {"pull": {"condition": "service_completed_successfully"}}
    assert pull["command"][-1] == cloud["environment"]["PD_SERVER_MODEL"]
    assert "models:/models" in pull["volumes"]
    assert "models:/models:ro" in cloud["volumes"]
    assert pull["environment"]["HF_TOKEN_PATH"] == "/run/secrets/hf_token"
    assert "vllm-cache:/cache" in cloud["volumes"]


def test_replicas_have_one_address(podman: Path) -> None:
    services = _compose("cpu", "replicas", podman=podman)["services"]
    assert services["balancer"]["ports"] == ["127.0.0.1:50050:50050"]
    assert not services["cloud-1"]["ports"]
    assert not services["cloud-2"]["ports"]
    assert services["cloud-2"]["environment"] == services["cloud"]["environment"]
    conf = (REPO / "deploy" / "replicas.nginx.conf").read_text(encoding="utf-8")
    assert set(re.findall(r"^\s+server ([a-z0-9-]+):50051", conf, re.MULTILINE)) == {
        "cloud-1",
        "cloud-2",
    }


def test_the_cloud_publishes_both_ports_on_loopback(podman: Path) -> None:
    ports = _compose(podman=podman)["services"]["cloud"]["ports"]
    assert ports == ["127.0.0.1:50051:50051", "127.0.0.1:8080:8080"]


def test_no_service_has_more_rights_than_it_needs(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert "privileged" not in service, name
        assert "network_mode" not in service, name
        assert "pid" not in service, name
        assert service["read_only"] is True, name
        assert service["tmpfs"] == ["/tmp"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        mounts = service.get("volumes", [])
        writable = {volume for volume in mounts if not volume.endswith(":ro")}
        assert writable == WRITABLE.get(name, set()), name
        assert all(volume.partition(":")[0] in compose["volumes"] for volume in writable), name
        assert not any("docker.sock" in volume for volume in mounts), name


def test_the_cloud_is_healthy_before_a_device_starts(compose: dict[str, Any]) -> None:
    cloud, device = compose["services"]["cloud"], compose["services"]["device"]
    assert cloud["healthcheck"]["test"][0] == "CMD"
    assert device["depends_on"]["cloud"]["condition"] == "service_healthy"


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("cloud", ["pd_server"]),
        ("cloud-gpu", ["pd_server"]),
        ("cloud-vllm", ["pd_server"]),
        ("device", ["pd_device_client", "chat"]),
    ],
)
def test_settings_are_ones_that_the_command_reads(
    compose: dict[str, Any], service: str, command: list[str]
) -> None:
    told = subprocess.run(
        [sys.executable, "-m", *command, "--help"],
        env={**os.environ, "COLUMNS": "500", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    known = set(re.findall(r"env var: (PD_\w+)", told))
    used = {each for each in compose["services"][service]["environment"] if each[:2] == "PD"}
    dockerfile = REPO / compose["services"][service]["build"]["dockerfile"]
    used |= set(re.findall(r"\b(PD_(?:SERVER|DEVICE)_\w+)=", dockerfile.read_text()))
    assert used
    assert used <= known


@pytest.mark.heavy
def test_the_replay_command_parses(compose: dict[str, Any]) -> None:
    service = compose["services"]["replay"]
    done = subprocess.run(
        [sys.executable, "-m", "pd_bench", *service["command"]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Every option is understood; what fails is the trace, whose name compose would fill in.
    assert done.returncode == 2
    assert "/traces/" in done.stderr.replace("\n", "")
    assert "No such option" not in done.stderr


def test_secrets_are_files_and_never_values(compose: dict[str, Any]) -> None:
    for name, secret in compose["secrets"].items():
        assert set(secret) == {"file"}, name
    for service in compose["services"].values():
        for variable in service.get("environment", {}):
            assert not re.search("(_KEY|_TOKEN|_PASSWORD)$", variable) or variable.endswith(
                "TLS_KEY"
            ), "a secret in the environment shows in `inspect`"
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
    ignored = (REPO / ".gitignore").read_text(encoding="utf-8").split()
    assert "/deploy/secrets/" in ignored


def test_services_build_dockerfiles_that_exist(compose: dict[str, Any]) -> None:
    builds = [s["build"] for s in compose["services"].values() if "build" in s]
    built = {build["dockerfile"] for build in builds}
    assert built == {path.relative_to(REPO).as_posix() for path in DOCKERFILES}


def test_a_stop_waits_longer_than_the_drain(compose: dict[str, Any]) -> None:
    grace = compose["services"]["cloud"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > 30


def test_dockerfiles_are_clean() -> None:
    subprocess.run([BIN / "hadolint", *DOCKERFILES], check=True, timeout=30)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_image_is_non_root_and_multi_stage(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "ARG BASE=python:3.11-slim-bookworm" in text
    assert re.findall(r"^FROM (.*)$", text, re.M) == ["${BASE} AS build", "${BASE}"]
    assert "curl" not in text
    final = text[text.rindex("FROM ${BASE}") :]
    user = re.search(r"^USER (\d+):(\d+)$", final, re.M)
    assert user is not None
    assert min(map(int, user.groups())) >= 10_000
    assert "STOPSIGNAL SIGTERM" in final
    assert re.search(r"^HEALTHCHECK ", final, re.M)
    assert "pip install" not in final
    entry = re.search(r"^ENTRYPOINT (.*)$", final, re.M)
    assert entry is not None
    assert entry.group(1).startswith('["'), "the shell form would swallow SIGTERM"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_image_copies_only_its_part(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    copied = set(re.findall(r"^COPY (\w+) \./\1$", text, re.M))
    assert copied == IMAGE_ROOTS[path.name.removesuffix(".Dockerfile")]
    module = re.search(r'"-m", "(pd_\w+)"\]$', text, re.M)
    assert module is not None
    assert any((REPO / root / module.group(1) / "__main__.py").is_file() for root in copied)


def test_build_context_lets_through_what_images_copy() -> None:
    allowed = {
        line[1:] for line in (REPO / ".dockerignore").read_text().split() if line.startswith("!")
    }
    copied = {
        name
        for path in DOCKERFILES
        for names in re.findall(r"^COPY (?!--from)(.*) \S+$", path.read_text(), re.M)
        for name in names.split()
    }
    assert copied == allowed
    assert all((REPO / name).exists() for name in copied)


def test_a_new_volume_of_models_is_the_users(compose: dict[str, Any]) -> None:
    for path in DOCKERFILES:
        final = path.read_text(encoding="utf-8").rpartition("FROM ${BASE}")[2]
        made = re.search(r"install --directory --owner 10001 --group 10001 (.*)$", final, re.M)
        assert made is not None
        assert "/models" in made.group(1).split()
        assert "PD_MODELS_DIR=/models" in final


def test_yaml_is_clean() -> None:
    yamllint = pytest.importorskip("yamllint.config", reason="yamllint is in the extra dev")
    linter = pytest.importorskip("yamllint.linter")
    rules = yamllint.YamlLintConfig(file=str(REPO / ".yamllint"))
    files = [*REPO.glob("*.yml"), *(REPO / "deploy").rglob("*.yml")]
    files += (REPO / "deploy").rglob("*.yaml")
    assert len(files) > 10
    problems = [
        f"{path.relative_to(REPO)}:{problem}"
        for path in files
        for problem in linter.run(path.read_text(encoding="utf-8"), rules, str(path))
    ]
    assert not problems
