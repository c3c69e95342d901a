"""The `chutes` command: one file per noun, each imported only when it is used."""
