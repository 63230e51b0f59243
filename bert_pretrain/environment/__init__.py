"""The Python environment: TensorFlow releases, what this machine has, what is missing, and its installation.

init_tf.sh runs it with the system's Python before anything is installed, so it needs the standard library only.
"""
