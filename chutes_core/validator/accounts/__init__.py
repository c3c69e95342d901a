"""Users, keys, scopes: who may do what."""
