"""A model on disk, TF1 checkpoint or Hugging Face folder, and the answers of its network to padded examples."""
