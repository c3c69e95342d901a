"""`chutes warmup --dashboard`: one screen that is drawn anew while a chute becomes hot.

Path: warmup -> `Board.told` for each status line, which looks at the chute's record -> rich draws.
Invariant: it fits 80 columns, and it is drawn on a terminal alone; elsewhere lines are printed.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

KEPT_LINES = 10


class Board:
    """What is shown.

    Args:
        name: of the chute.
        look: returns the chute's record of this moment.
    """

    def __init__(self, name: str, look: Callable[[], dict[str, Any]]) -> None:
        self._name = name
        self._look = look
        self._record: dict[str, Any] = {}
        self._status = "asking"
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    def told(self, event: dict[str, Any]) -> RenderableType:
        """Take a status line, look at the chute, and return the screen."""
        self._status = str(event.get("status") or self._status)
        self._lines.append(str(event.get("log") or event.get("status") or event))
        self._record = self._look()
        return self.screen()

    def screen(self) -> RenderableType:
        """Return the screen as it is now."""
        facts = Table.grid(padding=(0, 2))
        for label, value in (
            ("status", self._status),
            ("phase", self._record.get("phase")),
            ("why", self._record.get("reason")),
            ("GPUs", _gpus(self._record.get("node_selector") or {})),
        ):
            if value:
                facts.add_row(label, Text(str(value)))
        instances = self._record.get("instances") or []
        rows = Table("INSTANCE", "STATE", "GPU", box=None, pad_edge=False)
        for one in instances:
            rows.add_row(str(one["instance_id"]), str(one["state"]), str(one["gpu"]))
        shown = rows if instances else Text("no instance yet")
        told = Text("\n".join(self._lines))
        return Panel(Group(facts, "", shown, "", told), title=self._name, width=80)


def _gpus(selector: dict[str, Any]) -> str:
    count = selector.get("gpu_count") or 1
    kinds = ", ".join(str(one) for one in selector.get("include") or ())
    vram = selector.get("min_vram_gb_per_gpu")
    least = f"of at least {vram} GB" if vram else ""
    return " ".join(filter(None, (f"{count} x", kinds or "GPU", least)))
