"""Frozen records and rules of the validator, without I/O."""
