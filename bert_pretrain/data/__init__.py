"""Shards -> the batch of one update: records by offset, their order, packing, the input pipeline."""
