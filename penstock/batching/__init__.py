"""What an engine computes next: paged KV blocks, prefix reuse and continuous batching, without a clock, a thread or an
array.
"""
