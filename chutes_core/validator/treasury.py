"""The parts of the validator that hold money and roles, wired; validator/app.py builds it once.

Invariant: no secret is here: addresses come from public keys, refunds are paid by the signer.
"""

from dataclasses import dataclass

from bittensor_core import Keypair, ss58_decode

from chutes_core.base.clock import Clock
from chutes_core.chain.addresses import derive
from chutes_core.chain.client import ChainClient
from chutes_core.validator.accounts.linking import Linking
from chutes_core.validator.billing.deposits import Deposits
from chutes_core.validator.billing.gifts import Gifts, HeldRao
from chutes_core.validator.billing.payments import Payments
from chutes_core.validator.billing.refunds import Refunds
from chutes_core.validator.billing.roles import DepositTerms, settle_notice
from chutes_core.validator.network import Network
from chutes_core.validator.settings import ValidatorSettings
from chutes_core.validator.signer.desk import Desk
from chutes_core.validator.store.database import Store


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


def build_treasury(
    settings: ValidatorSettings,
    store: Store,
    clock: Clock,
    chain: ChainClient,
    network: Network,
    *,
    validator_ss58: str,
    held_rao: HeldRao,
) -> Treasury:
    """Construct the parts; nothing runs yet."""
    terms = DepositTerms(
        required_rao=settings.developer_deposit_rao,
        enforced=settings.require_developer_deposit,
        lock_s=settings.deposit_lock_s,
    )
    deposits = Deposits(store, clock, terms)
    sender = Keypair(
        ss58_address=settings.deposit_treasury,
        public_key=bytes(ss58_decode(settings.deposit_treasury)),
    )
    probe_ss58 = derive(settings.deposit_treasury, 0)
    refunds = Refunds(
        store,
        clock,
        terms,
        fee_rao=lambda: chain.transfer_fee_rao(sender, probe_ss58, terms.required_rao or 1),
    )
    linking = Linking(
        store,
        clock,
        _ChainRoles(network, chain),
        validator_ss58=validator_ss58,
        roles_changed=lambda user_id, roles: settle_notice(
            store, terms, user_id, roles, clock.now_s()
        ),
    )
    desk = None
    if settings.signer_spool is not None and settings.signer_uid is not None:
        desk = Desk(refunds, settings.signer_spool, signer_uid=settings.signer_uid)
    return Treasury(
        payments=Payments(store, clock, deposits),
        deposits=deposits,
        refunds=refunds,
        linking=linking,
        gifts=Gifts(store, clock, held_rao),
        desk=desk,
    )
