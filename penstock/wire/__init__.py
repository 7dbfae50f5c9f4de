"""What bytes mean: dialects in and out, as pure functions. No I/O."""
