"""Processes whose model takes for ever to load: what a large model on a slow disk is like."""

import os
import sys
from pathlib import Path

_SITE = '''
import ctypes, importlib.abc, sys, time

class _Finder(importlib.abc.MetaPathFinder):
    """Puts a reader that never ends in the place of the one that opens weights."""

    def find_spec(self, name, path, target=None):
        if {lock_held!r}:
            if name == "pd_core.text.tokenizer":
                import tokenizers
                tokenizers.Tokenizer = _Tokenizer
        elif name == "pd_core.checkpoints.checkpoint":
            import safetensors
            safetensors.safe_open = _never

def _never(*_, **__):
    open({mark!r}, "w").close()
    while True:
        time.sleep(600)

class _Tokenizer:
    """Its reader holds the interpreter's lock; but not in a child that tries a file out."""

    @staticmethod
    def from_str(_):
        open({mark!r}, "w").close()
        while True:
            ctypes.PyDLL(None).usleep(100_000_000)

sys.meta_path.insert(0, _Finder())
'''


def slow_loading(folder: Path, *, lock_held: bool = False) -> tuple[dict[str, str], Path]:
    """Return the environment of such a process, and a file that appears when it loads.

    Args:
        folder: a folder of the test's own.
        lock_held: it is the tokenizer that takes for ever, and holds the interpreter's lock.
    """
    mark = folder / "loading"
    (folder / "sitecustomize.py").write_text(_SITE.format(mark=str(mark), lock_held=lock_held))
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": path}, mark
