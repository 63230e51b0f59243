"""The machine: files, locks, processes, streams, C++ libraries, workers. Nothing here knows TensorFlow."""
