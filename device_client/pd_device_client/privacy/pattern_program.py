"""The child process that searches texts for patterns; `PatternSearch` is its parent.

A request is {"patterns": [...]} at first, {"texts": [...]} to be searched from now on, or
{"search": the number of a pattern}, which is answered with {"found": whether a text has it}.
"""

import re
from typing import Any

from pd_core.process.behind_wall import serve_behind_wall

__all__ = ["main"]

_MEMORY_BYTES = 1 << 30
_ORPHAN_S = 20.0


def main() -> None:
    """Answer requests until the parent is gone."""
    serve_behind_wall(
        _Searcher().answer,
        memory_bytes=_MEMORY_BYTES,
        within_s=_ORPHAN_S,
        most_kept_bytes=_MEMORY_BYTES,
    )


class _Searcher:
    def __init__(self) -> None:
        self._patterns: list[re.Pattern[str]] = []
        self._texts: list[str] = []

    def answer(self, request: dict[str, Any]) -> dict[str, bool]:
        if "patterns" in request:
            self._patterns = [re.compile(pattern) for pattern in request["patterns"]]
        if "texts" in request:
            self._texts = request["texts"]
        if "search" not in request:
            return {}
        pattern = self._patterns[request["search"]]
        return {"found": any(pattern.search(text) for text in self._texts)}
