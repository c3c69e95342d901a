"""A local chain that speaks Substrate JSON-RPC with the real Subtensor metadata."""
