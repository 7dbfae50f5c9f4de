"""May this caller, now? Rates, concurrency and budgets, reserved together or not at all, and settled exactly once."""
