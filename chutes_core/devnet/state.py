"""Key-value state with history, and the typed view that pallets and runtime APIs use.

`VersionedStore` keeps every key's values by height, so that a client reads any of the last blocks
at its hash. `Overlay` is the state of the block being built, with nested transactions. Invariant:
what was readable at a height never changes until that height is pruned as a whole.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from chutes_core.base.errors import NotFound
from chutes_core.devnet.codec import Codec

KEPT_BLOCKS = 4_096


class KeyValue(Protocol):
    """Raw reads at one point of the chain."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value under ``key``, or None."""
        ...

    def keys(self, prefix: bytes, after: bytes | None = None) -> Iterator[bytes]:
        """Yield the set keys that start with ``prefix``, in order, beyond ``after``."""
        ...


class VersionedStore:
    """All keys with their values by height.

    Args:
        kept_blocks: how many of the newest heights stay readable.
    """

    def __init__(self, kept_blocks: int = KEPT_BLOCKS) -> None:
        self._kept = kept_blocks
        self._heights: dict[bytes, list[int]] = {}
        self._values: dict[bytes, list[bytes | None]] = {}
        self._sorted: list[bytes] = []
        self._touched: deque[tuple[int, tuple[bytes, ...]]] = deque()
        self.height = -1

    def commit(self, height: int, changes: Mapping[bytes, bytes | None]) -> None:
        """Seal the changes of the next block; heights come one after the other."""
        assert height == self.height + 1
        for key, value in changes.items():
            if key not in self._heights:
                if value is None:
                    continue
                self._heights[key], self._values[key] = [], []
                insort(self._sorted, key)
            self._heights[key].append(height)
            self._values[key].append(value)
        self._touched.append((height, tuple(changes)))
        self.height = height
        self._prune()

    def rewind(self, height: int) -> None:
        """Undo every commit above ``height``, which must still be readable."""
        assert self.oldest <= height
        while self._touched and self._touched[-1][0] > height:
            undone, keys = self._touched.pop()
            for key in keys:
                heights = self._heights.get(key)
                if heights and heights[-1] == undone:
                    heights.pop()
                    self._values[key].pop()
                    if not heights:
                        del self._heights[key], self._values[key]
                        del self._sorted[bisect_left(self._sorted, key)]
        self.height = height

    @property
    def oldest(self) -> int:
        """The lowest height whose state is still readable."""
        return max(0, self.height - self._kept + 1)

    def at(self, height: int) -> "StoreAt":
        """Return the state as of the end of block ``height``.

        Raises:
            NotFound: ``state_discarded`` for pruned heights, ``no_such_block`` beyond the head.
        """
        if height > self.height:
            raise NotFound("no_such_block", f"block {height} does not exist")
        if height < self.oldest:
            raise NotFound("state_discarded", f"the state of block {height} was discarded")
        return StoreAt(self, height)

    def read(self, key: bytes, height: int) -> bytes | None:
        """Return the value of ``key`` as of ``height``."""
        heights = self._heights.get(key)
        if not heights:
            return None
        position = bisect_right(heights, height)
        return self._values[key][position - 1] if position else None

    def scan(self, prefix: bytes, height: int, after: bytes | None) -> Iterator[bytes]:
        """Yield the keys under ``prefix`` that are set as of ``height``, beyond ``after``."""
        start = bisect_left(self._sorted, prefix)
        if after is not None and after > prefix:
            start = bisect_right(self._sorted, after)
        for position in range(start, len(self._sorted)):
            key = self._sorted[position]
            if not key.startswith(prefix):
                return
            if self.read(key, height) is not None:
                yield key

    def _prune(self) -> None:
        floor = self.oldest
        while self._touched and self._touched[0][0] <= floor:
            for key in self._touched.popleft()[1]:
                self._prune_key(key, floor)

    def _prune_key(self, key: bytes, floor: int) -> None:
        heights = self._heights.get(key)
        if heights is None:
            return
        surplus = bisect_right(heights, floor) - 1  # entries that nothing readable can reach
        if surplus > 0:
            del heights[:surplus]
            del self._values[key][:surplus]
        if len(heights) == 1 and self._values[key][0] is None:
            del self._heights[key], self._values[key]
            del self._sorted[bisect_left(self._sorted, key)]


class StoreAt:
    """The state at the end of one block, read only."""

    def __init__(self, store: VersionedStore, height: int) -> None:
        self._store = store
        self._height = height

    def get(self, key: bytes) -> bytes | None:
        """Return the value under ``key``, or None."""
        return self._store.read(key, self._height)

    def keys(self, prefix: bytes, after: bytes | None = None) -> Iterator[bytes]:
        """Yield the set keys that start with ``prefix``, in order, beyond ``after``."""
        return self._store.scan(prefix, self._height, after)


class Overlay:
    """Changes on top of a state, with nested transactions.

    Args:
        base: the state below.
    """

    def __init__(self, base: KeyValue) -> None:
        self._base = base
        self._layers: list[dict[bytes, bytes | None]] = [{}]

    def get(self, key: bytes) -> bytes | None:
        """Return the value under ``key``, or None."""
        for layer in reversed(self._layers):
            if key in layer:
                return layer[key]
        return self._base.get(key)

    def keys(self, prefix: bytes, after: bytes | None = None) -> Iterator[bytes]:
        """Yield the set keys that start with ``prefix``, in order, beyond ``after``."""
        found = set(self._base.keys(prefix, after))
        for layer in self._layers:
            found |= {k for k in layer if k.startswith(prefix) and (after is None or k > after)}
        return iter(sorted(key for key in found if self.get(key) is not None))

    def set(self, key: bytes, value: bytes | None) -> None:
        """Set or (None) remove a key in the innermost transaction."""
        self._layers[-1][key] = value

    def begin(self) -> None:
        """Open a transaction."""
        self._layers.append({})

    def commit(self) -> None:
        """Keep the innermost transaction's changes."""
        changes = self._layers.pop()
        self._layers[-1].update(changes)

    def rollback(self) -> None:
        """Drop the innermost transaction's changes."""
        self._layers.pop()

    def rollback_to_base(self) -> None:
        """Drop the changes of all open transactions, after an error inside them."""
        del self._layers[1:]

    def changes(self) -> dict[bytes, bytes | None]:
        """Return all changes; no transaction may be open."""
        assert len(self._layers) == 1
        return dict(self._layers[0])


class StateView:
    """Typed reads of storage items.

    Args:
        codec: the runtime's types.
        raw: the bytes at one point of the chain.
    """

    def __init__(self, codec: Codec, raw: KeyValue) -> None:
        self.codec = codec
        self._raw = raw

    def get(self, pallet: str, item: str, *params: Any) -> Any:
        """Return a decoded value; unset keys give the item's default (None when optional)."""
        raw = self._raw.get(self.codec.key(pallet, item, params))
        return self.codec.decode_value(pallet, item, raw)

    def has(self, pallet: str, item: str, *params: Any) -> bool:
        """Tell whether the key is set."""
        return self._raw.get(self.codec.key(pallet, item, params)) is not None

    def raw(self, pallet: str, item: str, *params: Any) -> bytes | None:
        """Return the undecoded value, or None when unset."""
        return self._raw.get(self.codec.key(pallet, item, params))

    def items(self, pallet: str, item: str, *fixed: Any) -> list[tuple[Any, Any]]:
        """Return the free key parts and the value of each entry under a map's prefix."""
        prefix = self.codec.key(pallet, item, fixed)
        out = []
        for key in self._raw.keys(prefix):
            value = self.codec.decode_value(pallet, item, self._raw.get(key))
            out.append((self.codec.key_params(pallet, item, key, len(fixed)), value))
        return out


class StateWriter(StateView):
    """Typed reads and writes on an overlay.

    Args:
        codec: the runtime's types.
        overlay: where changes go.
    """

    def __init__(self, codec: Codec, overlay: Overlay) -> None:
        super().__init__(codec, overlay)
        self.overlay = overlay

    def put(self, pallet: str, item: str, *params_and_value: Any) -> None:
        """Set a storage item: its key parameters, then the value."""
        *params, value = params_and_value
        key = self.codec.key(pallet, item, tuple(params))
        self.overlay.set(key, self.codec.encode_value(pallet, item, value))

    def put_raw(self, pallet: str, item: str, *params_and_value: Any) -> None:
        """Set a storage item to bytes that are encoded already."""
        *params, value = params_and_value
        self.overlay.set(self.codec.key(pallet, item, tuple(params)), value)

    def remove(self, pallet: str, item: str, *params: Any) -> None:
        """Unset a storage item."""
        self.overlay.set(self.codec.key(pallet, item, params), None)
