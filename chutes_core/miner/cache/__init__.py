"""The model cache: a folder of this host for each chute, so that its next launch here is warm."""
