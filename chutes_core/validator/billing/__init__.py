"""Rates, ledger, payments: every movement of rao."""
