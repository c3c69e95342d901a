"""From records of work to weights on chain."""
