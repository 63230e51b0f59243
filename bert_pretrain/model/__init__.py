"""The network in plain tf.compat.v1 variables with the published checkpoints' names."""
