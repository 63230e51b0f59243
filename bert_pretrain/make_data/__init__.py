"""Text -> vocabulary -> shards. Importing it needs no TensorFlow."""
