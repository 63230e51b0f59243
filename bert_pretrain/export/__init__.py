"""A checkpoint as a Hugging Face folder, a SavedModel, or a TF1 checkpoint of the weights alone."""
