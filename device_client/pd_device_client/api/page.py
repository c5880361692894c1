"""The page at `/`: files of this package, and headers that isolate it.

It loads nothing from elsewhere and runs nothing inline, so the page works without a network, and a
model's text can never become a script, a style or a request.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["PageFile", "page_files", "page_routes"]

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = {
    "default-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "object-src": "'none'",
    # The browser itself refuses to turn a string into markup.
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
_HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "Cache-Control": "no-cache",  # revalidate: a different version may run now
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
_INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page.

    Attributes:
        content: its bytes.
        media_type: for the browser.
        tag: changes with the content.
    """

    content: bytes
    media_type: str
    tag: str


def page_files() -> dict[str, PageFile]:
    """Read the page's files; the keys are URL paths, the index under "/"."""
    return dict(_files())


def _files() -> Iterator[tuple[str, PageFile]]:
    for entry in (resources.files("pd_device_client") / "page").iterdir():
        media_type = _TYPES.get("." + entry.name.rpartition(".")[2])
        if media_type is None:
            continue
        content = entry.read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        path = "/" if entry.name == _INDEX else f"/page/{entry.name}"
        yield path, PageFile(content, media_type, tag)


def page_routes(files: dict[str, PageFile]) -> list[Route]:
    """Return routes that serve exactly these files."""

    async def page(request: Request) -> Response:
        file = files.get(request.scope["path"])
        if file is None:
            raise HTTPException(404)
        headers = {**_HEADERS, "ETag": file.tag}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media_type)

    return [Route("/", page), Route("/page/{name}", page)]
