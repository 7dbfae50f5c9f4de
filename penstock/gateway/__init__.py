"""The gateway: a request from bytes to receipt. Begin with `serve.py`."""
