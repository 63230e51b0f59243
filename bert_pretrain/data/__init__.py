"""From text to the rows of one update: corpus, shards, order, packing."""
