"""The command `llm` and its library, with a model of its own settings file."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from trial import HELLO, KEY, LIMIT, PERSON, Person, try_all


def settings(url: str, model: str) -> str:
    """Write what a user would write, and return the folder."""
    folder = tempfile.mkdtemp()
    entry = {
        "model_id": "pd-device",
        "model_name": model,
        "api_base": f"{url}/v1",
        "api_key": KEY,
        "supports_schema": True,
        "supports_tools": True,
    }
    # JSON is YAML too.
    Path(folder, "extra-openai-models.yaml").write_text(json.dumps([entry]))
    return folder


def llm(url: str, model: str, *words: str) -> str:
    """Run the command."""
    command: list[Any] = [Path(sys.executable).parent / "llm", "-m", "pd-device", *words]
    environment = {**os.environ, "LLM_USER_PATH": settings(url, model)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-1500:]
    return done.stdout.strip()


def options(limit: int = LIMIT) -> list[str]:
    return ["-o", "max_tokens", str(limit), "-o", "temperature", "0", "--no-log"]


def chat(url: str, model: str) -> str:
    return llm(url, model, HELLO, *options(), "--no-stream")


def stream(url: str, model: str) -> str:
    return llm(url, model, HELLO, *options())


def schema(url: str, model: str) -> str:
    words = ["--schema", json.dumps(Person.model_json_schema())]
    said = llm(url, model, PERSON, *options(128), *words)
    return Person.model_validate_json(said).model_dump_json()


if __name__ == "__main__":
    try_all({"chat": chat, "stream": stream, "schema": schema})
