"""The simulator: the live deciding code under a heap of events instead of an event loop."""
