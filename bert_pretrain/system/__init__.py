"""The machine: files, locks, processes, stderr, C++ libraries, workers. Nothing here knows TensorFlow."""
