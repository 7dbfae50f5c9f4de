"""The ground floor: the values everyone speaks, and nothing else."""
