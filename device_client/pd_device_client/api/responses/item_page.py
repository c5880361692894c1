"""A page of a list of items, as OpenAI's clients turn pages."""

from collections.abc import Mapping, Sequence
from typing import Any

from pd_device_client.api.http.errors import Refusal

__all__ = ["item_page"]

_USUAL, _MOST = 20, 100


def item_page(items: Sequence[dict[str, Any]], asked: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of items.

    Args:
        items: all of them, the oldest first.
        asked: query parameters: `limit`, `order` ("desc" by default) and `after`, an id.

    Raises:
        Refusal: one of them is wrong.
    """
    order = asked.get("order", "desc")
    if order not in ("asc", "desc"):
        raise Refusal(f"order is {order[:40]!a}; it must be asc or desc", "order")
    limit = asked.get("limit", str(_USUAL))
    if not limit.isdecimal() or not 1 <= int(limit[:9]) <= _MOST:
        raise Refusal(f"limit is {limit[:40]!a}; it must be 1 to {_MOST}", "limit")
    rows = list(items) if order == "asc" else list(reversed(items))
    after = asked.get("after")
    if after is not None:
        at = next((i for i, item in enumerate(rows) if item["id"] == after), None)
        if at is None:
            raise Refusal(f"after is {after[:100]!a}, which is no item of this list", "after")
        rows = rows[at + 1 :]
    page = rows[: int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(rows) > len(page),
    }
