"""The admin API: what the command line does with tenants, over HTTP, for those whose role allows it."""
