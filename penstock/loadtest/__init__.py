"""Live load: asks a server as the traffic says, and measures what its callers feel."""
