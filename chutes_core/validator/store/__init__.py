"""SQLite: migrations and one file per record; SQL lives only here."""
