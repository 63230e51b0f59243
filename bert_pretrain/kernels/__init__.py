"""Everything between the matrix products: TensorFlow's operations, XLA's programs, operations in C++."""
