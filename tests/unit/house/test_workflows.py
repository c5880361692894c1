"""The workflows: they are valid, run what exists, and on the systems that the metadata promises."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).parents[3]
WORKFLOWS = sorted((REPO / ".github/workflows").glob("*.yml"))
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SYSTEMS = {"ubuntu-latest": "Linux", "macos-latest": "MacOS", "windows-latest": "Windows"}


def _workflow(name: str) -> dict[str, Any]:
    path = REPO / ".github/workflows" / name
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def _commands(workflow: dict[str, Any]) -> list[str]:
    return [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_bounded_and_may_write_only_where_it_must(path: Path) -> None:
    workflow = _workflow(path.name)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 60
        assert name == "publish" or "permissions" not in job
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_makes_is_a_target(path: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (REPO / "Makefile").read_text("utf-8"), re.MULTILINE)
    for command in _commands(_workflow(path.name)):
        for words in re.findall(r"\bmake ([\w -]+)", command):
            assert set(words.split()) <= set(targets)


def test_every_system_of_the_metadata_is_tested_and_every_python() -> None:
    promised = [c.rpartition(" :: ")[2] for c in PROJECT["classifiers"] if "Operating Sys" in c]
    jobs = _workflow("check.yml")["jobs"]
    for job in (jobs["test-fast"], jobs["wheel"]):
        tested = {SYSTEMS[name] for name in job["strategy"]["matrix"]["os"]}
        assert tested == set(promised)
    pythons = [c.rpartition(" :: ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert jobs["test-fast"]["strategy"]["matrix"]["python"] == pythons


def test_the_tests_that_are_named_exist() -> None:
    for each in _workflow("check.yml")["jobs"]["test-fast"]["strategy"]["matrix"]["include"]:
        for folder in each["tests"].split():
            assert (REPO / folder).is_dir()
