"""The parts of the validator that hold money and roles; validator/app.py builds them once.

Invariant: no secret is here: addresses come from public keys, refunds are paid by the signer.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bittensor_core import Keypair, ss58_decode

from chutes_core.chain.addresses import derive
from chutes_core.chain.client import ChainClient
from chutes_core.validator.accounts.linking import Linking
from chutes_core.validator.billing.deposits import Deposits
from chutes_core.validator.billing.gifts import Gifts
from chutes_core.validator.billing.payments import Payments
from chutes_core.validator.billing.refunds import Refunds
from chutes_core.validator.billing.roles import DepositTerms, settle_notice
from chutes_core.validator.network import Network
from chutes_core.validator.settings import ValidatorSettings
from chutes_core.validator.signer.desk import Desk
from chutes_core.validator.wiring.ground import Shared
from chutes_core.validator.wiring.traffic import Traffic


@dataclass(frozen=True)
class Treasury:
    """Everything that has to do with money and roles; ``desk`` is None without a signer."""

    payments: Payments
    deposits: Deposits
    refunds: Refunds
    linking: Linking
    gifts: Gifts
    desk: Desk | None


class _ChainRoles:
    """What links and coldkeys need of the chain."""

    def __init__(self, network: Network, chain: ChainClient) -> None:
        self._network = network
        self._chain = chain

    def has_permit(self, hotkey_ss58: str) -> bool:
        neuron = self._network.picture.metagraph.by_hotkey(hotkey_ss58)
        return neuron is not None and neuron.validator_permit

    def owns_subnet(self, hotkey_ss58: str) -> bool:
        return self._network.picture.subnet.owner_hotkey == hotkey_ss58

    def owner_of(self, hotkey_ss58: str) -> str | None:
        return self._chain.owner_of(hotkey_ss58)


def build_treasury(shared: Shared, traffic: Traffic) -> Treasury:
    """Construct the parts; the gateway holds what is spent against an account's running calls."""
    settings, store, clock = shared.settings, shared.store, shared.clock
    terms = _terms(settings)
    deposits = Deposits(store, clock, terms)
    refunds = Refunds(store, clock, terms, fee_rao=_refund_fee(shared, terms))
    return Treasury(
        payments=Payments(store, clock, deposits),
        deposits=deposits,
        refunds=refunds,
        linking=_linking(shared, terms),
        gifts=Gifts(store, clock, traffic.gateway.spending),
        desk=_desk(settings, refunds),
    )


def _terms(settings: ValidatorSettings) -> DepositTerms:
    return DepositTerms(
        required_rao=settings.developer_deposit_rao,
        enforced=settings.require_developer_deposit,
        lock_s=settings.deposit_lock_s,
    )


def _refund_fee(shared: Shared, terms: DepositTerms) -> Callable[[], int]:
    """Return what asks the chain for the fee of one refund."""
    treasury_ss58, chain = shared.settings.deposit_treasury, shared.ground.chain
    sender = Keypair(ss58_address=treasury_ss58, public_key=bytes(ss58_decode(treasury_ss58)))
    probe_ss58 = derive(treasury_ss58, 0)
    return lambda: chain.transfer_fee_rao(sender, probe_ss58, terms.required_rao or 1)


def _linking(shared: Shared, terms: DepositTerms) -> Linking:
    store, clock = shared.store, shared.clock
    return Linking(
        store,
        clock,
        _ChainRoles(shared.network, shared.ground.chain),
        validator_ss58=shared.ground.keys.hotkey_ss58,
        roles_changed=lambda user_id, roles: settle_notice(
            store, terms, user_id, roles, clock.now_s()
        ),
    )


def _desk(settings: ValidatorSettings, refunds: Refunds) -> Desk | None:
    if settings.signer_spool is None or settings.signer_uid is None:
        return None
    return Desk(refunds, settings.signer_spool, signer_uid=settings.signer_uid)
