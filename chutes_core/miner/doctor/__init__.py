"""The doctor: looks at everything a miner needs, changes nothing, and says how to repair it."""
