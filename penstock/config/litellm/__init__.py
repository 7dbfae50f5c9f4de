"""From LiteLLM's configuration to Penstock's: what it says that Penstock can say, and a report of the rest."""
