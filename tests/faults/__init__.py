"""The fault suite: what goes wrong around a cache, made to go wrong. `make soak SECONDS=3600` runs it for that long."""
