"""How hard to try: retries, failover and hedging, breakers, and what each kind of failure means."""
