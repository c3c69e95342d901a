"""Pages of lists: `{total, page, limit, items[]}`, pages counted from 0."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query

Item = TypeVar("Item")
MAX_LIMIT = 200


@dataclass(frozen=True)
class Page:
    """Which page is asked for."""

    page: int
    limit: int

    @property
    def first(self) -> int:
        """Return how many items stand before the page."""
        return self.page * self.limit

    def of(self, items: Sequence[Item], view: Callable[[Item], dict[str, Any]]) -> dict[str, Any]:
        """Return the page of ``items``, each as ``view`` shows it."""
        return self.cut(len(items), items[self.first : self.first + self.limit], view)

    def cut(
        self, total: int, items: Sequence[Item], view: Callable[[Item], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the page whose items these are, of so many in all."""
        shown = [view(item) for item in items]
        return {"total": total, "page": self.page, "limit": self.limit, "items": shown}


def asked_page(
    page: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 25,
) -> Page:
    """Read page and limit from the query."""
    return Page(page, limit)


AskedPage = Annotated[Page, Depends(asked_page)]
