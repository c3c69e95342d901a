"""The validator neuron: catalog, launches, attestation, gateway, money, weights."""
