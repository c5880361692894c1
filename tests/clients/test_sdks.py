"""The clients that people have, against `pd-device serve`, with handoffs at three positions.

Each client's script runs in the environment `.venv-sdk` (`make clients-env`) and tries each feature
at three devices, which take over from one cloud after few, more and many tokens. A feature works
if the client gets what it asked for, and the same from all three.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pd_core.checkpoints.names import known_models
from tests.real_device import RealDevice, real_device
from tests.real_server import real_server

HERE = Path(__file__).parent
POSITIONS = (1, 4, 9)
CLIENTS = {
    "openai": "try_openai.py",
    "anthropic": "try_anthropic.py",
    "litellm": "try_litellm.py",
    "langchain-openai": "try_langchain.py",
    "instructor": "try_instructor.py",
    "pydantic-ai": "try_pydantic_ai.py",
    "openai-agents": "try_openai_agents.py",
    "llm": "try_llm.py",
}
