"""Text and a vocabulary -> shards of examples, in fast and in exact mode."""
