"""BERT pretraining with tf.estimator, TFRecord shards, TF1 checkpoints and Horovod."""

import os
import sys

__version__ = "0.1.0"


def _leave_out_current_folder() -> None:
    """`python -m` searches modules in the current folder first: a tqdm.py beside the user's text would be executed.

    The folder is left out here, and by PYTHONSAFEPATH, which Python 3.11 reads, in the processes that this one starts.
    One that holds this package, which may not be installed, stays.
    """
    if sys.argv[:1] != ["-m"] or getattr(sys.flags, "safe_path", False):  # "-m" while Python looks for the module
        return
    try:
        current = os.path.realpath(os.curdir)
    except FileNotFoundError:  # it was removed, so that it holds nothing
        return
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.realpath(sys.path[0]) == current != os.path.realpath(package):
        del sys.path[0]
        os.environ["PYTHONSAFEPATH"] = "1"


_leave_out_current_folder()
