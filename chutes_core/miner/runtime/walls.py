"""The walls around a miner's instances: its two networks and the firewall, set up, tried, kept.

Path: miner start-up -> `Walls.raise_up` -> instances; `keep` every now and then; `take_down` at the
end. Invariant: off a devnet no instance runs unless the walls were tried and held; on a devnet what
is missing is said once, with how to get it.
"""

from collections.abc import Callable, Sequence

from loguru import logger

from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.engine.firewall import Firewall, Rule, rules_for
from chutes_core.engine.networks import (
    Network,
    Networks,
    ensure_networks,
    networks_stand,
    remove_networks,
)
from chutes_core.engine.probe import Walls as Tried
from chutes_core.engine.probe import try_walls
from chutes_core.engine.run import EngineClient

Try = Callable[[Network], Tried]


class Walls:
    """The networks and rules of one miner; sync, called from threads."""

    def __init__(
        self,
        client: EngineClient,
        owner: str,
        *,
        dns: Sequence[str],
        firewall: Firewall | None = None,
        probe: Try = try_walls,
    ) -> None:
        self._client = client
        self._owner = owner
        self._dns = tuple(dns)
        self._firewall = firewall or Firewall()
        self._probe = probe
        self._rules: tuple[Rule, ...] = ()
        self._networks: Networks | None = None
        self.stand = False
        self.mark = f"chutes {owner[:16]}"
        """The comment that each rule of this miner carries."""

    def raise_up(self, *, is_devnet: bool) -> Networks:
        """Make the networks, set the rules, and try them.

        Raises:
            ChutesError: the engine refuses; or, off a devnet, the rules cannot be set
                (``firewall_unavailable``), tried (``walls_not_tried``), or do not hold
                (``walls_leak``).
        """
        networks = self._networks = ensure_networks(self._client, self._owner)
        self._rules = rules_for(networks, self.mark, dns=self._dns)
        try:
            self._firewall.ensure(self._rules)
            self._try(networks)
        except ChutesError as error:
            if not is_devnet:
                raise
            logger.bind(code=error.code).warning(
                "instances are NOT kept from this host (accepted on a devnet): {}", error
            )
        else:
            self.stand = True
            logger.bind(inside=networks.inside.subnet, outside=networks.outside.subnet).info(
                "walls around instances were tried and hold"
            )
        return networks

    @property
    def networks(self) -> Networks:
        """Return the networks as they were made or found last."""
        assert self._networks is not None, "`raise_up` comes first"
        return self._networks

    def mend(self) -> bool:
        """Make networks again that somebody has removed (`docker network prune`); False for none.

        Raises:
            ChutesError: as `raise_up`; where walls stood before, nothing runs until they do again.
        """
        if networks_stand(self._client, self.networks):
            return False
        logger.bind(code="networks_restored").warning("networks of instances were made again")
        self.raise_up(is_devnet=not self.stand)
        return True

    def keep(self) -> None:
        """Set again what somebody else has removed (a firewall that was reloaded).

        Raises:
            Unavailable: ``firewall_unavailable``.
        """
        if self.stand and self._firewall.ensure(self._rules):
            logger.bind(code="firewall_restored").warning("rules around instances were set again")

    def take_down(self) -> None:
        """Remove the networks, and the rules once no network is left to guard.

        Raises:
            ChutesError: the engine or the firewall refuses.
        """
        if remove_networks(self._client, self._owner):
            self._firewall.remove(self._rules)

    def _try(self, networks: Networks) -> None:
        leaks = [leak for one in (networks.inside, networks.outside) for leak in self._found(one)]
        if leaks:
            raise Unavailable(
                "walls_leak",
                f"the firewall rules are set and instances still reach {', '.join(leaks)}",
                hint="another firewall on this host may accept before them; see iptables -S INPUT;"
                " traffic between instances is only filtered with br_netfilter loaded",
            )

    def _found(self, network: Network) -> tuple[str, ...]:
        return self._probe(network).leaks
