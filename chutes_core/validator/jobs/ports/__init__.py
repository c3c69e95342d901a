"""Ports of running jobs, reached by their users through the validator and the miner's relay."""
