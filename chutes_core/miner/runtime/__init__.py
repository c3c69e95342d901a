"""How an instance is run on this host: a Protocol and its adapters."""
