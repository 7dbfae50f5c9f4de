"""Databases, as for the stores."""

from tests.stores.conftest import database, loop, new_url, postgres, url

__all__ = ["database", "loop", "new_url", "postgres", "url"]
