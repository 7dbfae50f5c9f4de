"""Fakes at the edge and virtual time, for our tests and for those of plugins."""
