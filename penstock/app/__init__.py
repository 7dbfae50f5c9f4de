"""Put together: the parts of every room become one server, started, followed and stopped."""
