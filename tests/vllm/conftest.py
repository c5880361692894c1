"""vLLM in this process: its own processes would each import everything again."""

import os
from pathlib import Path

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
# What it has compiled is kept between runs, unlike the other tests' cache.
_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
os.environ.setdefault("VLLM_CACHE_ROOT", str(Path(_cache) / "vllm"))
