"""Training steps of one worker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nucseg_ray.imaging.augment import Subject, centre_crop
from nucseg_ray.imaging.codecs import as_rgb
from nucseg_ray.imaging.diameters import nuclei_of
from nucseg_ray.imaging.labels import CentreLabels
from nucseg_ray.imaging.normalise import Percentile
from nucseg_ray.imaging.synthetic import SiteLook, render_site
from nucseg_ray.imaging.targets import training_targets
from nucseg_ray.model.architecture import Architecture


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    """Give two crops and their targets."""
    crops = []
    for seed in range(2):
        image, labels = render_site(
            SiteLook(shape_px=(64, 64), nuclei=4, radius_px=(6.0, 10.0)), np.random.default_rng(seed)
        )
        pixels = as_rgb(np.rint(Percentile().normalise(image) * 255).astype(np.uint8))
        subject = Subject(pixels, labels.astype(np.uint16), nuclei_of(labels), 16.0)
        crops.append(centre_crop(subject, crop_px=64, diameter_px=16.0))
    targets = [training_targets(crop, CentreLabels()) for crop in crops]
    return np.stack([crop.pixels for crop in crops]), np.stack(targets)


@pytest.fixture(scope="module")
def replica(unet: Any, architecture: Architecture, weights: dict[str, np.ndarray]) -> Any:
    """Give one replica for the module; each test begins with a restore."""
    from nucseg_ray.model.replica import Replica, Schedule

    schedule = Schedule(learning_rate=0.01, warmup_steps=2, total_steps=40, frozen_steps=40)
    return Replica(architecture, weights, schedule=schedule, n_workers=1)


@pytest.fixture(scope="module")
def start(replica: Any) -> dict[str, np.ndarray]:
    return replica.state()


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(
        array.dtype == second[name].dtype and array.tobytes() == second[name].tobytes() for name, array in first.items()
    )


def test_it_begins_with_the_weights_given(
    replica: Any, start: dict[str, np.ndarray], weights: dict[str, np.ndarray]
) -> None:
    from nucseg_ray.model.replica import network_weights

    replica.restore(start)
    assert same(network_weights(replica.state()), weights)
    assert any(name.startswith("optimiser/") for name in start)


def test_steps_teach_the_decoder_and_leave_the_encoder(
    replica: Any, start: dict[str, np.ndarray], batch: tuple[np.ndarray, np.ndarray], weights: dict[str, np.ndarray]
) -> None:
    from nucseg_ray.model.replica import network_weights

    replica.restore(start)
    losses = [float(replica.train_step(*batch)) for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]
    trained = network_weights(replica.state())
    own = [name for name in trained if name.startswith(("up", "head"))]
    encoder = [name for name in trained if name not in own]
    assert any("moving_mean" in name for name in encoder)
    assert all((trained[name] == weights[name]).all() for name in encoder)
    moved = [name for name in own if (trained[name] != weights[name]).any()]
    assert "head/kernel:0" in moved and any("moving_variance" in name for name in moved)


def test_a_restored_state_goes_on_bit_for_bit(
    replica: Any, start: dict[str, np.ndarray], batch: tuple[np.ndarray, np.ndarray]
) -> None:
    replica.restore(start)
    for _ in range(3):
        replica.train_step(*batch)
    middle = replica.state()
    outcomes = []
    for _ in range(2):
        replica.restore(middle)
        losses = [float(replica.train_step(*batch)) for _ in range(2)]
        outcomes.append((losses, replica.learning_rate, replica.state()))
    assert outcomes[0][:2] == outcomes[1][:2]
    assert same(outcomes[0][2], outcomes[1][2])
    assert not same(middle, outcomes[0][2])


def test_the_encoder_joins_after_the_frozen_steps(
    architecture: Architecture, weights: dict[str, np.ndarray], batch: tuple[np.ndarray, np.ndarray]
) -> None:
    from nucseg_ray.model.replica import Replica, Schedule, network_weights

    schedule = Schedule(0.01, warmup_steps=1, total_steps=8, frozen_steps=2, encoder_share=0.5)
    joining = Replica(architecture, weights, schedule=schedule, n_workers=1)
    for _ in range(2):
        joining.train_step(*batch)
    frozen = joining.state()
    encoder = [name for name in weights if not name.startswith(("up", "head"))]
    assert all((frozen[name] == weights[name]).all() for name in encoder)
    joining.train_step(*batch)
    joined = network_weights(joining.state())
    moved = {name for name in encoder if (joined[name] != weights[name]).any()}
    # Not the statistics that the encoder's batch norm came with.
    assert not [name for name in moved if "moving_" in name]
    assert moved >= {name for name in encoder if "kernel" in name}
    # Adam's first step is the learning rate itself, wherever the gradient is well above its epsilon.
    step = np.abs(joined["Conv1/kernel:0"] - weights["Conv1/kernel:0"])
    assert np.median(step) == pytest.approx(0.5 * joining.learning_rate, rel=0.05)

    joining.restore(frozen)
    joining.train_step(*batch)
    again = network_weights(joining.state())
    assert all((again[name] == joined[name]).all() for name in joined)


def test_the_rate_warms_up_and_falls(
    replica: Any, start: dict[str, np.ndarray], batch: tuple[np.ndarray, np.ndarray]
) -> None:
    replica.restore(start)
    rates = []
    for _ in range(8):
        replica.train_step(*batch)
        rates.append(replica.learning_rate)
    peak = int(np.argmax(rates))
    assert peak <= 2
    assert rates[peak] == pytest.approx(0.01, rel=0.02)
    assert rates[peak:] == sorted(rates[peak:], reverse=True) and rates[-1] < rates[peak]


def test_evaluation_shows_the_weights_it_was_given(
    replica: Any, start: dict[str, np.ndarray], batch: tuple[np.ndarray, np.ndarray], weights: dict[str, np.ndarray]
) -> None:
    from nucseg_ray.model.replica import network_weights

    replica.restore(start)
    replica.show(weights)
    maps, before = replica.evaluate(*batch)
    assert maps.shape == (2, 64, 64, 3) and maps.dtype == np.uint8
    for _ in range(4):
        replica.train_step(*batch)
    assert replica.evaluate(*batch)[1] == before  # training moves another network
    head = {**network_weights(replica.state()), "head/kernel:0": np.zeros((1, 1, 8, 12)), "head/bias:0": np.zeros(12)}
    replica.show(head)
    maps, _ = replica.evaluate(*batch)
    assert (maps == 128).all()  # a logit of 0 is 127.5, rounded to even


def test_a_lone_worker_sums_by_itself(replica: Any) -> None:
    values = np.array([1.5, 2.0])
    np.testing.assert_array_equal(replica.sum_over_workers(values), values)
