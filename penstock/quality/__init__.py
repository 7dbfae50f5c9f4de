"""How well it goes: service levels, alerts, feedback. Pure: numbers come in, verdicts go out."""
