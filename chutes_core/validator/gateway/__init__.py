"""The request path: front, admission, routing, forward, metering; it ends at the journal."""
