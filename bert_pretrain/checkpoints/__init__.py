"""TF1 checkpoints: their files, writing and restoring them, resuming a run, copies in a remote storage."""
