"""Two validators and two miners with one GPU each; hotkey 3 is registered and runs nothing."""

from scripts.localnet import Localnet


class Network:
    """The processes of a started chain, and where to reach them."""

    def __init__(self, net: Localnet):
        self.net = net
        self.validators = [net.start_validator(1), net.start_validator(2)]
        for number in (1, 2, 3):
            net.register_miner(number)
        self.miners = [net.start_miner(1), net.start_miner(2)]

    def url(self, number):
        return str(self.validators[number - 1].ready["url"])

    def hotkey(self, number):
        return str(self.validators[number - 1].ready["hotkey"])
