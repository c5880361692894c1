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
    "device": {"core", "proto", "device_client"},
    "bench": {"core", "proto", "server", "device_client", "bench"},
}


def _compose(*arguments: str, podman: Path) -> dict[str, Any]:
    """Return the compose file as podman-compose reads it: profiles applied, variables filled in."""
    done = subprocess.run(
        [
            BIN / "podman-compose",
            "--podman-path",
            podman,
            "-f",
            REPO / "docker-compose.yml",
            *arguments,
            "config",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=REPO,
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


def test_profiles_choose_services(podman: Path) -> None:
    assert set(_compose(podman=podman)["services"]) == {"cloud"}
    assert set(_compose("--profile", "device", podman=podman)["services"]) == {"cloud", "device"}
    assert set(_compose("--profile", "replay", podman=podman)["services"]) == {"cloud", "replay"}
    replicas = {"cloud", "cloud-1", "cloud-2", "balancer"}
    assert set(_compose("--profile", "replicas", podman=podman)["services"]) == replicas


def test_replicas_have_one_address(podman: Path) -> None:
    services = _compose("--profile", "replicas", podman=podman)["services"]
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
        assert all(volume.endswith(":ro") for volume in mounts), name
        assert not any("docker.sock" in volume for volume in mounts), name


def test_the_cloud_is_healthy_before_a_device_starts(compose: dict[str, Any]) -> None:
    cloud, device = compose["services"]["cloud"], compose["services"]["device"]
    assert cloud["healthcheck"]["test"][0] == "CMD"
    assert device["depends_on"] == {"cloud": {"condition": "service_healthy"}}


@pytest.mark.parametrize(
    ("service", "command"),
    [("cloud", ["pd_server"]), ("device", ["pd_device_client", "chat"])],
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
    used = set(compose["services"][service]["environment"])
    dockerfile = REPO / compose["services"][service]["build"]["dockerfile"]
    used |= set(re.findall(r"\b(PD_(?:SERVER|DEVICE)_\w+)=", dockerfile.read_text()))
    assert used
    assert used <= known


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
            assert variable != "PD_SERVER_API_KEY", "a key in the environment shows in `inspect`"
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
