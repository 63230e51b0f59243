"""BERT: encoder and heads on plain tf.compat.v1 variables that are named as in the published checkpoints."""
