"""How many threads TensorFlow may use in this process."""

from __future__ import annotations

import tensorflow as tf


def limit_threads(threads: int) -> None:
    """Give TensorFlow so many threads, and let it take GPU memory only as it needs it.

    TensorFlow fixes its threads with its first operation: in a process that has used it already, nothing changes.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        # One more operation at a time than that only makes them fight for the same cores.
        tf.config.threading.set_inter_op_parallelism_threads(min(threads, 2))
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        return
