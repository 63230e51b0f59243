"""What differs between TensorFlow versions, its Estimator, its import, its variables."""
