"""How well it goes: service levels, alerts, refusals, feedback. Pure: numbers come in, verdicts go out."""
