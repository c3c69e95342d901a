"""The JSON-RPC methods: parameters in, plain JSON out.

Path: `server` frames a request -> `Rpc.handle` -> `chain`, `apis`. Invariant: every request gets
exactly one answer at once; what the devnet does not know is an error that says so.
"""

from collections.abc import Callable
from typing import Any

from chutes_core.base.errors import ChutesError, NotFound
from chutes_core.devnet import version
from chutes_core.devnet.apis import RuntimeApis, payment_info
from chutes_core.devnet.blocks import Block
from chutes_core.devnet.chain import Chain
from chutes_core.devnet.codec import blake2_256
from chutes_core.devnet.development import Development
from chutes_core.devnet.extrinsics import TransactionRefused
from chutes_core.devnet.state import StoreAt
from chutes_core.devnet.subscriptions import Session, Subscriptions

METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INVALID_REQUEST = -32600
SERVER_ERROR = -32000
MAX_PAGE = 1_000
MAX_KEYS = 16_384

Params = list[Any]
Answer = Callable[..., Any]


class RpcError(Exception):
    """An error answer.

    Args:
        code: JSON-RPC error code.
        message: what went wrong.
        data: more words, as nodes give them.
    """

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def body(self) -> dict[str, Any]:
        """Return the error object."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        return body if self.data is None else body | {"data": self.data}


class Rpc:
    """Answers requests about one chain.

    Args:
        chain: the chain.
        development: answers the dev_ methods; None where they are not to be had.
    """

    def __init__(self, chain: Chain, development: Development | None = None) -> None:
        self.faults = chain.faults
        self._chain = chain
        self._reads_archive = False  # whether the request in hand may read pruned state
        self._apis = RuntimeApis(
            chain.codec, slot_ms=chain.params.block_ms, versions=chain.versions
        )
        self._subscriptions = Subscriptions(chain)
        self._methods: dict[str, Answer] = {
            **self._system_methods(),
            **self._chain_methods(),
            **self._state_methods(),
            **self._author_methods(),
            **({} if development is None else development.methods()),
        }
        self._watching = self._subscriptions.methods()

    def handle(self, session: Session, request: Any) -> dict[str, Any] | None:
        """Return the answer to one request; None for a notification."""
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            error = RpcError(INVALID_REQUEST, "Invalid request")
            return {"jsonrpc": "2.0", "error": error.body(), "id": None}
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request.get("id")}
        try:
            answer["result"] = self._dispatch(session, request["method"], request.get("params"))
        except RpcError as error:
            answer["error"] = error.body()
        return answer if "id" in request else None

    def _dispatch(self, session: Session, method: str, params: Any) -> Any:
        if params is None:
            params = []
        if not isinstance(params, list):
            raise RpcError(INVALID_PARAMS, "Invalid params: an array is expected")
        self._reads_archive = session.is_archive
        try:
            if method in self._watching:
                if not session.can_subscribe:
                    raise RpcError(METHOD_NOT_FOUND, f"{method} needs a websocket")
                return self._watching[method](session, *params)
            if method in self._methods:
                return self._methods[method](*params)
        except RpcError:
            raise
        except TransactionRefused as error:
            raise RpcError(error.code, error.message, error.data) from error
        except NotFound as error:
            raise RpcError(SERVER_ERROR, f"Client error: {error.message}") from error
        except ChutesError as error:
            raise RpcError(INVALID_PARAMS, f"Invalid params: {error.message}") from error
        except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise RpcError(INVALID_PARAMS, f"Invalid params: {error}") from error
        reason = f"Method not found: devnet has no {method}"
        if method.startswith("dev_"):
            reason += " (or was not started with --dev-controls)"
        raise RpcError(METHOD_NOT_FOUND, reason)

    # system, rpc, payment

    def _system_methods(self) -> dict[str, Answer]:
        index = self._chain.next_index
        return {
            "rpc_methods": lambda: {"methods": sorted([*self._methods, *self._watching])},
            "system_chain": lambda: version.CHAIN_NAME,
            "system_chainType": lambda: "Development",
            "system_name": lambda: version.NODE_NAME,
            "system_version": lambda: version.NODE_VERSION,
            "system_properties": lambda: dict(version.PROPERTIES),
            "system_health": lambda: {"peers": 0, "isSyncing": False, "shouldHavePeers": False},
            "system_accountNextIndex": index,
            "account_nextIndex": index,
            "payment_queryInfo": self._query_info,
        }

    def _query_info(self, extrinsic: str, _at: str | None = None) -> dict[str, Any]:
        info = payment_info(self._chain.codec, _octets(extrinsic))
        return {
            "weight": info["weight"],
            "class": str(info["class"]).lower(),
            "partialFee": str(info["partial_fee"]),
        }

    # chain

    def _chain_methods(self) -> dict[str, Answer]:
        chain = self._chain
        return {
            "chain_getBlockHash": self._block_hash,
            "chain_getHead": self._block_hash,
            "chain_getFinalizedHead": lambda: _hex(chain.finalized.hash),
            "chain_getFinalisedHead": lambda: _hex(chain.finalized.hash),
            "chain_getHeader": self._header,
            "chain_getBlock": self._block,
        }

    def _block_hash(self, number: Any = None) -> Any:
        if number is None:
            return _hex(self._chain.best.hash)
        if isinstance(number, list):
            return [self._block_hash(one) for one in number]
        height = int(number, 16) if isinstance(number, str) else int(number)
        block = self._chain.block_at(height)
        return None if block is None else _hex(block.hash)

    def _header(self, at: str | None = None) -> dict[str, Any] | None:
        block = self._find(at)
        return None if block is None else block.header_json()

    def _block(self, at: str | None = None) -> dict[str, Any] | None:
        block = self._find(at)
        if block is None:
            return None
        extrinsics = [_hex(raw) for raw in block.extrinsics]
        body = {"header": block.header_json(), "extrinsics": extrinsics}
        return {"block": body, "justifications": None}

    # state

    def _state_methods(self) -> dict[str, Answer]:
        metadata = self._chain.codec.metadata
        return {
            "state_getMetadata": lambda _at=None: _hex(metadata.v14),
            "state_getRuntimeVersion": self._runtime_version,
            "chain_getRuntimeVersion": self._runtime_version,
            "state_getStorage": self._storage,
            "state_getStorageAt": self._storage,
            "state_queryStorageAt": self._query_storage,
            "state_getKeysPaged": self._keys_paged,
            "state_getKeysPagedAt": self._keys_paged,
            "state_getStorageHash": self._storage_hash,
            "state_getStorageSize": self._storage_size,
            "state_call": self._call,
            "state_callAt": self._call,
        }

    def _runtime_version(self, at: str | None = None) -> dict[str, Any]:
        block = self._need(at)
        return version.runtime_version_json(self._chain.versions.at(block.number + 1))

    def _storage(self, key: str, at: str | None = None) -> str | None:
        value = self._state(at).get(_octets(key))
        return None if value is None else _hex(value)

    def _storage_hash(self, key: str, at: str | None = None) -> str | None:
        value = self._state(at).get(_octets(key))
        return None if value is None else _hex(blake2_256(value))

    def _storage_size(self, key: str, at: str | None = None) -> int | None:
        value = self._state(at).get(_octets(key))
        return None if value is None else len(value)

    def _query_storage(self, keys: list[str], at: str | None = None) -> list[dict[str, Any]]:
        if len(keys) > MAX_KEYS:
            raise RpcError(INVALID_PARAMS, f"Invalid params: more than {MAX_KEYS} keys")
        state = self._state(at)
        changes = []
        for key in keys:
            value = state.get(_octets(key))
            changes.append([key, None if value is None else _hex(value)])
        return [{"block": _hex(self._need(at).hash), "changes": changes}]

    def _keys_paged(
        self, prefix: str | None, count: int, start: str | None = None, at: str | None = None
    ) -> list[str]:
        if not 0 <= count <= MAX_PAGE:
            raise RpcError(INVALID_PARAMS, f"Invalid params: at most {MAX_PAGE} keys a page")
        after = _octets(start) if start else None
        found = self._state(at).keys(_octets(prefix or "0x"), after)
        return [_hex(key) for key, _ in zip(found, range(count), strict=False)]

    def _call(self, name: str, parameters: str, at: str | None = None) -> str:
        view = self._chain.state_at(self._readable(at).number)
        return _hex(self._apis.call(name, _octets(parameters), view))

    # author

    def _author_methods(self) -> dict[str, Answer]:
        pool = self._chain.pool
        return {
            "author_submitExtrinsic": lambda raw: _hex(self._chain.submit(_octets(raw))),
            "author_pendingExtrinsics": lambda: [_hex(p.extrinsic.raw) for p in pool.pending()],
        }

    # blocks by hash

    def _find(self, at: str | None) -> Block | None:
        return self._chain.best if at is None else self._chain.block(_octets(at))

    def _need(self, at: str | None) -> Block:
        block = self._find(at)
        if block is None:
            raise RpcError(
                SERVER_ERROR,
                f"Client error: UnknownBlock: Header was not found in the database: {at}",
            )
        return block

    def _readable(self, at: str | None) -> Block:
        block = self._need(at)
        kept = self.faults.kept_state_blocks
        pruned = kept is not None and block.number <= self._chain.best.number - kept
        if block.number < self._chain.store.oldest or (pruned and not self._reads_archive):
            reason = f"State already discarded for {_hex(block.hash)}"
            raise RpcError(SERVER_ERROR, f"Client error: UnknownBlock: {reason}", reason)
        return block

    def _state(self, at: str | None) -> StoreAt:
        return self._chain.store.at(self._readable(at).number)


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _octets(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
