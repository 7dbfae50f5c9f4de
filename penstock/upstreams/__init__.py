"""Adapters to whatever answers requests: one per protocol, not one per vendor."""
