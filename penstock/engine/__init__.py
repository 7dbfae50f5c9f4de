"""Serves a model by itself, on CPU: checkpoint, kernels, continuous batching, and the OpenAI API over one replica."""
