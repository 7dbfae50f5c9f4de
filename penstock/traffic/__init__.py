"""Which requests arrive when: traces, arrival processes, sessions, users. Simulated and live load share it."""
