"""The miner neuron: inventory, placement, runtimes, relay."""
