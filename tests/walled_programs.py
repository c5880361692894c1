"""Programs for WalledProcess, as its child calls them."""

import os
import socket
import time
from typing import Any

from pd_core.process.behind_wall import serve_behind_wall


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    match request.pop("do"):
        case "echo":
            return request
        case "environment":
            return dict(os.environ)
        case "sleep":
            time.sleep(request["s"])
            return {}
        case "compute":  # one operation in C, which lets nothing of Python run
            return {"digits": 3 ** (10**8) % 7}
        case "end":
            os._exit(3)
        case "grow":
            try:
                return {"bytes": len(bytearray(request["bytes"]))}
            except MemoryError:
                return {"error": "MemoryError"}
        case "keep":
            _kept.append(b"x" * request["bytes"])
            return {}
        case "open":
            return {"errors": [_error(socket.socket), _error(lambda: open(__file__))]}  # noqa: PTH123
        case other:
            raise AssertionError(other)


def _error(call: Any) -> str:
    try:
        call()
    except OSError as error:
        return type(error).__name__
    return ""


_kept: list[bytes] = []


def serve() -> None:
    """Serve with narrow bounds."""
    serve_behind_wall(_answer, memory_bytes=256 << 20, within_s=3, most_kept_bytes=64 << 20)


def serve_patiently() -> None:
    """Serve with so much time that an end comes from elsewhere."""
    serve_behind_wall(_answer, memory_bytes=1 << 30, within_s=3600, most_kept_bytes=64 << 20)
