"""TensorBoard's event files, as bytes: where they go is not this module's business.

An epoch has a file of its own that never changes. TensorBoard reads the files of a folder one after the other, in the
order of their names, and keeps a file that it reads open: it would not see that a file was replaced by a longer one. So
both a local folder and an object store, which cannot append, show every epoch as soon as it has ended.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

# Where TensorBoard shows each column of the history; curves with the same word before the slash stand together.
TAGS = {
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
    "validation_ap50": "validation/AP@0.5",
    "validation_score": "validation/score",
    "learning_rate": "learning_rate",
}
# Says how the events that follow are to be read; every file begins with it.
_VERSION = "brain.Event:2"


def event_file_name(epoch: int) -> str:
    """Name the event file of an epoch; the names sort like the epochs."""
    return f"events.out.tfevents.{epoch:010d}.nucseg_ray"


def event_file(row: Mapping[str, float]) -> bytes:
    """Give the event file of one row of the history: its ``epoch``, when it ``ended_at`` (Unix time), and ``TAGS``."""
    at = row["ended_at"]
    values = [tf.compat.v1.Summary.Value(tag=tag, simple_value=row[column]) for column, tag in TAGS.items()]
    events = [
        tf.compat.v1.Event(wall_time=at, file_version=_VERSION),
        tf.compat.v1.Event(wall_time=at, step=int(row["epoch"]), summary=tf.compat.v1.Summary(value=values)),
    ]
    with tempfile.TemporaryDirectory() as folder:  # TensorFlow writes records to files only
        path = Path(folder) / "events"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for event in events:
                writer.write(event.SerializeToString())
        return path.read_bytes()
