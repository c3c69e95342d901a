"""Everything said to Subtensor."""
