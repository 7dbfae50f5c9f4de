"""Control loops: they watch, ask a pure decision, and act. Nothing on the path of a request waits for them."""
