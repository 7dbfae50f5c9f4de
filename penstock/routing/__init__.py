"""Which deployments, in which order, and why: rules, experiments, difficulty, ceilings, places."""
