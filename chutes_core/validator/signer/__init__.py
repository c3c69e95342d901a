"""The signer: a process of its own, the only one that can spend developer deposits."""
