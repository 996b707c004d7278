"""Event files, read back with TensorFlow's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from nucseg_ray.model.tensorboard import event_file, event_file_name

ROW = {
    "epoch": 7,
    "train_loss": 0.25,
    "validation_loss": 0.5,
    "validation_ap50": 0.75,
    "validation_score": 0.625,
    "learning_rate": 0.001,
    "seconds": 3.0,
    "ended_at": 1_700_000_000.5,
}


def test_an_event_file_holds_one_epoch(tmp_path: Path) -> None:
    (tmp_path / "events").write_bytes(event_file(ROW))
    records = tf.data.TFRecordDataset(str(tmp_path / "events")).as_numpy_iterator()
    version, epoch = [tf.compat.v1.Event.FromString(record) for record in records]
    assert (version.file_version, version.wall_time) == ("brain.Event:2", ROW["ended_at"])
    assert (epoch.step, epoch.wall_time) == (7, ROW["ended_at"])
    assert {value.tag: value.simple_value for value in epoch.summary.value} == pytest.approx(
        {
            "loss/train": 0.25,
            "loss/validation": 0.5,
            "validation/AP@0.5": 0.75,
            "validation/score": 0.625,
            "learning_rate": 0.001,
        }
    )


def test_event_files_sort_like_epochs_and_are_known_as_such() -> None:
    names = [event_file_name(epoch) for epoch in (1, 2, 10, 99, 100, 12345)]
    assert sorted(names) == names
    assert all("tfevents" in name for name in names)
