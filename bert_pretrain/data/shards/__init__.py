"""The records of TFRecord shards, read by number, local or remote."""
