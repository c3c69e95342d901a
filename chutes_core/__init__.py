"""chutes_core: an open serverless GPU cloud on Bittensor."""
