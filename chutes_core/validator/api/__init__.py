"""The FastAPI control plane: guards, routes, and the one map from error to status."""
