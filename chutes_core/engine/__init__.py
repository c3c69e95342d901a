"""Everything said to a Docker engine; the only importer of docker."""
