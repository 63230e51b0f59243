"""BERT pretraining with tf.estimator, TFRecord shards, TF1 checkpoints and Horovod."""

__version__ = "0.1.0"
