"""Penstock: the production LLM serving platform that one engineer can hold in their head."""

__version__ = "0.1.0"
