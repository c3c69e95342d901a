"""What a pallet's call handler is given and may raise.

The seam between `executor` (which extrinsic, which fee, which phase) and `pallets/` (what a call
does). Invariant: a handler that raises `DispatchFailure` leaves no trace in state or events; its
caller rolls both back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chutes_core.devnet.codec import Codec
    from chutes_core.devnet.events import EventLog
    from chutes_core.devnet.state import StateWriter


@dataclass(frozen=True)
class Call:
    """One decoded call.

    Args:
        pallet: e.g. ``Balances``.
        function: e.g. ``transfer_keep_alive``.
        args: decoded arguments by name; accounts are SS58, bytes 0x-hex or text.
        data: the call's exact bytes, for arguments whose decoded form is lossy.
    """

    pallet: str
    function: str
    args: dict[str, Any]
    data: bytes


@dataclass(frozen=True)
class Origin:
    """Who dispatches a call: a signed account, root, or (both unset) the block's author."""

    account: str | None = None
    is_root: bool = False

    def signed(self) -> str:
        """Return the signing account.

        Raises:
            BadOrigin: not a signed origin.
        """
        if self.account is None or self.is_root:
            raise BadOrigin
        return self.account

    def root(self) -> None:
        """Insist on root.

        Raises:
            BadOrigin: not root.
        """
        if not self.is_root:
            raise BadOrigin

    def inherent(self) -> None:
        """Insist on the block's author.

        Raises:
            BadOrigin: signed or root.
        """
        if self.account is not None or self.is_root:
            raise BadOrigin


class DispatchFailure(Exception):
    """A call failed; `value` is its DispatchError as the codec takes it."""

    def value(self, codec: "Codec") -> Any:
        """Return the DispatchError."""
        raise NotImplementedError


class BadOrigin(DispatchFailure):
    """The origin may not make this call."""

    def value(self, codec: "Codec") -> Any:
        """Return the DispatchError."""
        return "BadOrigin"


class OtherFailure(DispatchFailure):
    """A failure without a name, as a fault makes it."""

    def value(self, codec: "Codec") -> Any:
        """Return the DispatchError."""
        return "Other"


class ModuleFailure(DispatchFailure):
    """An error of a pallet, by name."""

    def __init__(self, pallet: str, name: str) -> None:
        super().__init__(f"{pallet}.{name}")
        self.pallet = pallet
        self.name = name

    def value(self, codec: "Codec") -> Any:
        """Return the DispatchError."""
        return codec.module_error(self.pallet, self.name)


class TokenFailure(DispatchFailure):
    """An error of the token layer, e.g. ``FundsUnavailable``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def value(self, codec: "Codec") -> Any:
        """Return the DispatchError."""
        return {"Token": self.name}


@dataclass
class Context:
    """Everything a call handler may touch, inside one block.

    Args:
        state: typed storage at the current point of execution.
        events: where events are deposited.
        codec: types of the runtime.
        block: height of the block being built.
        allow_private_axons: serve_axon takes loopback and private addresses.
        dispatch: runs another call with all-or-nothing effect; raises `DispatchFailure`.
    """

    state: "StateWriter"
    events: "EventLog"
    codec: "Codec"
    block: int
    allow_private_axons: bool
    dispatch: Callable[[Origin, Call], None]


Handler = Callable[[Context, Origin, Call], None]
