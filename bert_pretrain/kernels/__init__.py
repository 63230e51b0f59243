"""The operations between the matrix products, on three backends: TensorFlow's operations, XLA programs, C++."""
