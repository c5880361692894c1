"""zig compiles other systems' C libraries once, in minutes: its cache is the user's."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def zig_s_cache() -> None:
    """Keep zig's cache where it is without the tests' own XDG_CACHE_HOME."""
    os.environ.setdefault("ZIG_GLOBAL_CACHE_DIR", str(Path.home() / ".cache" / "zig"))
