"""What the tests of the page share: one browser for each file, and a page on the file's server."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api_server import ApiServer
from tests.browser import chromium, opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Any, server: ApiServer) -> Iterator[Any]:
    """A page of the server that the file's own fixture starts."""
    with opened(browser, server.url) as made:
        yield made
