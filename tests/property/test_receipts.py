"""Whatever is changed in a receipt, it holds no more."""

import json

import pytest
from bittensor_core import Keypair
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_core.base.errors import Unauthenticated
from chutes_core.validator.billing.receipts import Sealer, _shown
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.wire.receipt import Receipt, ReceiptBatch, path_of, root_of

VALIDATOR = Keypair.create_from_uri("//Validator")
OTHER = Keypair.create_from_uri("//Other")
SEALER = Sealer(VALIDATOR, "0xgenesis", 64)


def record(sequence: int) -> Invocation:
    return Invocation(
        worker="w",
        sequence=sequence,
        invocation_id=f"inv-{sequence}",
        user_id="u",
        key_id="k",
        chute_id="c",
        launch_id="l",
        rate_id="r",
        rao_per_hour=3_600_000_000,
        hold_rao=1_000,
        free=False,
        started_at_us=sequence,
        usage_us=10 * sequence,
        bytes_in=1,
        bytes_out=2,
        attempts=1,
        status=200,
        outcome="ok",
    )


def receipt(count: int, position: int, first: int = 7) -> Receipt:
    records = [record(first + n) for n in range(count)]
    batch = SEALER.seal(records)
    leaves = [_shown(one).leaf() for one in records]
    return Receipt(
        batch=ReceiptBatch.model_validate_json(batch.head),
        signature=batch.signature,
        position=position,
        path=path_of(leaves, position),
        call=_shown(records[position]),
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_every_call_of_a_batch_is_proven(size: tuple[int, int]):
    """Of batches of any size each call's path leads to the signed root."""
    made = receipt(*size)
    made.check()
    made.check(VALIDATOR.ss58_address)
    Receipt.model_validate_json(made.model_dump_json()).check()


def flat(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    if isinstance(value, dict):
        return [p for name, one in value.items() for p in flat(one, (*path, name))]
    if isinstance(value, list):
        return [p for n, one in enumerate(value) for p in flat(one, (*path, n))]
    return [path]


FIELDS = flat(json.loads(receipt(5, 2).model_dump_json()))


@pytest.mark.parametrize("where", FIELDS, ids=lambda where: ".".join(map(str, where)))
def test_a_receipt_with_any_field_changed_is_refused(where: tuple[object, ...]):
    """Each field is signed: of the batch, of the call, of the path."""
    document = json.loads(receipt(5, 2).model_dump_json())
    spot = document
    for step in where[:-1]:
        spot = spot[step]
    old = spot[where[-1]]
    if isinstance(old, bool) or old is None:
        spot[where[-1]] = 1 if old is None else not old
    elif isinstance(old, int):
        spot[where[-1]] = old + 1
    else:
        last = "1" if old[-1] == "0" else "0"
        spot[where[-1]] = old[:-1] + last
    with pytest.raises(Unauthenticated):
        Receipt.model_validate(document).check()


def test_a_receipt_of_another_validator_is_refused():
    """A valid signature of somebody else's is none of the validator's."""
    made = receipt(3, 1)
    with pytest.raises(Unauthenticated, match="bad_receipt"):
        made.check(OTHER.ss58_address)
    forged = made.batch.model_copy(update={"validator_hotkey": VALIDATOR.ss58_address})
    resigned = made.model_copy(update={"batch": forged, "signature": forged.signed(OTHER)})
    with pytest.raises(Unauthenticated):
        resigned.check(VALIDATOR.ss58_address)


def test_a_path_that_is_too_short_or_too_long_is_refused():
    """An inner node is never taken for a leaf, nor a leaf for a node."""
    made = receipt(5, 2)
    for path in (made.path[:-1], (*made.path, "00" * 32), ("zz" * 32, *made.path[1:]), ()):
        with pytest.raises(Unauthenticated):
            made.model_copy(update={"path": path}).check()


def test_the_tree_is_that_of_rfc_6962():
    """The root of three leaves is the node of the first two's node and the third."""
    one, two, three = (record(n) for n in (1, 2, 3))
    leaves = [_shown(call).leaf() for call in (one, two, three)]
    assert root_of(leaves) == root_of([root_of(leaves[:2]), leaves[2]])
    assert path_of(leaves, 2) == (root_of(leaves[:2]).hex(),)
