"""The `chutes` command: one file per noun, thin over sdk.client."""
