"""Pagination of item lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Depends, Query

from server.errors import wrong


class PageQuery:
    """The page of a list that a request asks for."""

    def __init__(
        self,
        limit: Annotated[int, Query(ge=1, le=100, description="maximum number of items")] = 20,
        order: Annotated[
            Literal["asc", "desc"], Query(description="asc: oldest first; desc: newest first")
        ] = "desc",
        after: Annotated[str | None, Query(description="only those after this item")] = None,
    ) -> None:
        self.limit, self.order, self.after = limit, order, after

    def of(self, items: Mapping[str, Any]) -> dict[str, Any]:
        """The page of `items` (by id, oldest first). Raises ApiError if there is no item `after`."""
        ids = list(items)
        if self.order == "desc":
            ids.reverse()
        if self.after is not None:
            if self.after not in items:
                raise wrong("after", "there is no such item")
            ids = ids[ids.index(self.after) + 1 :]
        return item_list([items[id] for id in ids[: self.limit]], ids[: self.limit], len(ids) > self.limit)


def item_list(items: list[Any], ids: list[str], has_more: bool = False) -> dict[str, Any]:
    """A list in the API's format."""
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    return {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more}


PageDep = Annotated[PageQuery, Depends()]
