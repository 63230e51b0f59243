"""Shards -> report and manifest.json."""
