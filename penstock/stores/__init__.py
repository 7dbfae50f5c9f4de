"""What outlives a request: narrow Protocols in `base`, each with a small implementation in memory and one in SQLite."""
