"""Which replica: the least-cost one among those that may be asked now."""
