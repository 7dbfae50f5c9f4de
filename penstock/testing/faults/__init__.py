"""The fault wall: an upstream that breaks in every way we know, and a score card of what callers are told about it.

It works against any gateway: `python -m penstock.testing.faults --help`, and docs/faults.md.
"""
