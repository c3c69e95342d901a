"""Many ids of calls, kept without holding them all in memory: what a long run compares at its end.

An id is 16 bytes; its last one says to which of 256 heaps it belongs. A heap waits in memory until
it is worth a write, and then goes to the end of a file of its own. Two of these are compared heap
by heap, so that a 256th of each is in memory at a time. Invariant: nothing that was added is lost
or comes twice, and equal ids are always in the same heap.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ID_BYTES = 16
HEAPS = 256
WRITE_BYTES = 16 * 1024


class Ids:
    """Ids in the order of nothing, each as often as it was added.

    Args:
        folder: for the heaps that have grown; made when it is first needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._heaps = [bytearray() for _ in range(HEAPS)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, name: str) -> None:
        """Add the id that a UUID's text names.

        Raises:
            ValueError: it names none.
        """
        one = bytes.fromhex(name.replace("-", ""))
        if len(one) != ID_BYTES:
            raise ValueError(f"{name!r} is no id")
        heap = self._heaps[one[-1]]
        heap += one
        self._count += 1
        if len(heap) >= WRITE_BYTES:
            self._write(one[-1])

    def heaps(self) -> Iterator[Counter[bytes]]:
        """Yield each heap: its ids, and how often each was added."""
        for number, heap in enumerate(self._heaps):
            file = self._file(number)
            data = (file.read_bytes() if file.exists() else b"") + heap
            yield Counter(data[at : at + ID_BYTES] for at in range(0, len(data), ID_BYTES))

    def _write(self, number: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._file(number).open("ab") as file:
            file.write(self._heaps[number])
        self._heaps[number].clear()

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:02x}"
