"""The jobs on a cluster that ``ray start --head`` began: submitted, joined, or left alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_ray.config import TrainSettings
from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.codecs import decode_label_png
from nucseg_ray.model.bundle import FORMS, MODEL_JSON, REFERENCE, WEIGHTS, read_bundle
from nucseg_ray.storage.ledger import committed_stems
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import read_parts
from nucseg_ray.submitted import refuse_vanishing_output, with_hint

ROOT = Path(__file__).resolve().parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
DEADLINE_S = 600.0
# One more than this machine has: the preflight says on how many CPUs a run is, and so on which Ray.
CPUS = (os.cpu_count() or 1) + 1
ACCOUNT = "24 sites = 22 segmented + 2 empty + 0 failed (of these, done before: 0)"
# The source alone; the model that comes with it has a limit of its own.
MOST_BYTES, MOST_BYTES_OF_THE_MODEL = 2_000_000, 16_000_000
PRETRAINED = "nucseg_ray/pretrained/"
# One thread: in which order several add up a sum is nowhere promised.
SHORT_TRAINING = {
    **{"encoder_weights": "none", "epochs": 1, "crops_per_epoch": 64, "crop_px": 64, "batch_size": 8},
    "threads_per_worker": 1,
}
# What lies in a working copy and must not travel, under names that no list of names foresees.
LITTER = [
    ".git/objects/pack",
    ".venv/lib/library.so",
    ".mypy_cache/cache.json",
    "big.npz",
    "model/weights.npz",
    "my_plate/A01.tif",
    "results/masks/A01.png",
    "nucseg_ray/__pycache__/cli.cpython-311.pyc",
]
MODEL = (MODEL_JSON, WEIGHTS, *(name for names in FORMS.values() for name in names))
TRAVELS = ["run.yaml", *(PRETRAINED + name for name in (*MODEL, "MODEL_CARD.md"))]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working copy of this project with everything in it that people leave in one."""
    folder = tmp_path_factory.mktemp("copy") / "nucseg"
    for name in ("nucseg_ray", "jobs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", ".rayignore", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    for name in LITTER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"litter" * 500_000)
    for name in TRAVELS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).write_bytes(b"small")
    return folder


@pytest.fixture(scope="module")
def uploaded(copy: Path) -> set[str]:
    """The files of the working copy that a job needs, and no others."""
    source = [path for name in ("nucseg_ray", "jobs") for path in (ROOT / name).rglob("*") if path.is_file()]
    names = {str(path.relative_to(ROOT)) for path in source if "__pycache__" not in path.parts}
    return names | set(TRAVELS)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray that ``ray start --head`` began, and what its clients need."""

    address: str
    dashboard: str
    folder: Path
    environment: dict[str, str]
    copy: Path
    decoy: Path

    def submit(self, *entrypoint: str | Path, flags: tuple[str, ...] = ("--working-dir", ".")) -> Any:
        """Call ``ray job submit`` in the working copy, with another nucseg_ray on the path behind the uploaded one."""
        decoy = json.dumps({"env_vars": {"PYTHONPATH": str(self.decoy)}})
        command = [*RAY, "job", "submit", "--address", self.dashboard, "--runtime-env-json", decoy, *flags, "--"]
        return self.call([*command, *map(str, entrypoint)], cwd=self.copy)

    def call(self, command: list[str], *, cwd: Path = ROOT, **environment: str) -> Any:
        """Call a command as a person would on this machine."""
        return subprocess.run(
            command,
            cwd=cwd,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )


def _free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def cluster(copy: Path, tmp_path_factory: pytest.TempPathFactory, module_mark: Any, until: Any) -> Iterator[Cluster]:
    """A cluster of this machine alone, on ports and in a folder of its own; nothing of it is left."""
    decoy = tmp_path_factory.mktemp("decoy")
    (decoy / "nucseg_ray").mkdir()
    (decoy / "nucseg_ray/__init__.py").write_text("raise ImportError('not the uploaded nucseg_ray')\n")
    folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))  # short: the paths of Ray's sockets may be no longer
    port, dashboard, agent, client = _free_ports(4)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "disabled",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
        "NO_PROXY": "127.0.0.1",
        **module_mark.environment,
    }
    ports = ["--port", port, "--dashboard-port", dashboard, "--dashboard-agent-listen-port", agent]
    ports += ["--ray-client-server-port", client, "--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1"]
    room = ["--num-cpus", str(CPUS), "--object-store-memory", "200000000"]
    command = [*RAY, "start", "--head", "--block", *room, *ports]
    # In a folder of its own: where a job brings no working directory it runs where its cluster was started.
    with (folder / "log.txt").open("w") as log:
        head = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{dashboard}"
        until(lambda: head.poll() is not None or _answers(f"{url}/api/version"), "the cluster")
        assert head.poll() is None, (folder / "log.txt").read_text()
        yield Cluster(f"127.0.0.1:{port}", url, folder, environment, copy, decoy)
    finally:
        head.terminate()
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()
        module_mark.kill()
        until(lambda: not module_mark.processes(), "the processes of the cluster")
        shutil.rmtree(folder)


def _masks(out: Path) -> dict[str, np.ndarray]:
    """Give the masks of a run over one plate, by well."""
    return {
        path.parent.name: decode_label_png(path.read_bytes(), name=path.name) for path in (out / "masks").rglob("*.png")
    }


def _assert_masks_equal_a_plain_loop(out: Path, plate: Path, segment: Callable[..., np.ndarray]) -> None:
    images = {"".join(image.stem.split("-")[2:]): image for image in plate.glob("*.tif")}
    masks = _masks(out)
    assert set(masks) == set(images)
    for well, image in images.items():
        np.testing.assert_array_equal(masks[well], segment(image, out=out))


def _size(sizes: Mapping[str, int], *, of_model: bool) -> int:
    """Add up the files of the model that comes with the package, or all others."""
    return sum(size for name, size in sizes.items() if name.startswith(PRETRAINED) is of_model)


def test_the_upload_is_the_source_and_the_model_that_comes_with_it(
    copy: Path, uploaded: set[str], tmp_path: Path
) -> None:
    """Without a cluster: by the function that ``ray job submit`` packs with."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    package = tmp_path / "package.zip"
    excluded = get_runtime_env_default_excludes()
    create_package(str(copy), package, include_gitignore=True, include_parent_dir=False, excludes=excluded)
    with zipfile.ZipFile(package) as opened:
        sizes = {entry.filename: entry.compress_size for entry in opened.infolist() if not entry.is_dir()}
    assert sizes.keys() == uploaded
    assert _size(sizes, of_model=False) < MOST_BYTES
    assert _size(sizes, of_model=True) < MOST_BYTES_OF_THE_MODEL


@pytest.mark.parametrize("output", ["out", "./out", "../out", "file://out"])
def test_a_relative_output_of_a_submitted_job_is_refused(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PredictSettings(input="plate", model="model", output=output)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    refuse_vanishing_output(settings)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UsageError, match=rf"--output {re.escape(output)}: .*deleted with the job.*s3://bucket/folder"):
        refuse_vanishing_output(settings)


@pytest.mark.parametrize("output", ["/out", "~/out", "file:///out", "s3://bucket/out"])
def test_an_output_that_outlives_a_submitted_job_is_not(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    refuse_vanishing_output(PredictSettings(input="plate", model="model", output=output))


def test_a_file_missing_from_the_uploaded_copy_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = f"{os.getcwd()}/plate: expected a folder"
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert with_hint(missing) == missing
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert with_hint(missing).startswith(missing) and ".rayignore" in with_hint(missing)
    assert with_hint("/plate: expected a folder") == "/plate: expected a folder"


@pytest.mark.slow
def test_a_submitted_run_with_the_model_that_was_uploaded_equals_a_plain_loop(
    cluster: Cluster, uploaded: set[str], plate: Path, tiny_model: Path, tmp_path: Path, segment: Callable[..., Any]
) -> None:
    for name in MODEL:
        shutil.copy(tiny_model / name, cluster.copy / PRETRAINED)
    job = cluster.submit("python", "jobs/predict.py", "--input", plate / "P1", "--output", tmp_path / "out")
    assert job.returncode == 0, job.stdout
    assert ACCOUNT in job.stdout.splitlines()
    _assert_masks_equal_a_plain_loop(tmp_path / "out", plate / "P1", segment)
    # What was unpacked on the node is what was uploaded.
    (unpacked,) = cluster.folder.glob("ray/session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    sizes = {str(path.relative_to(unpacked)): path.stat().st_size for path in unpacked.rglob("*") if path.is_file()}
    assert {name for name in sizes if "__pycache__" not in name} == uploaded
    assert _size({name: sizes[name] for name in uploaded}, of_model=False) < MOST_BYTES


@pytest.mark.slow
def test_the_copy_wins_over_another_package_on_the_path(cluster: Cluster) -> None:
    """Without the upload the other one is found: so the jobs of these tests did pass it by, in driver and workers."""
    job = cluster.submit("python", "-c", "import nucseg_ray", flags=())
    assert job.returncode == 1
    assert "not the uploaded nucseg_ray" in job.stdout


@pytest.mark.slow
def test_a_submitted_training_equals_a_local_one(
    cluster: Cluster, tiny_set: Path, tmp_path: Path, ray_session: None
) -> None:
    from nucseg_ray.pipelines.training import run_train

    flags = [part for name, value in SHORT_TRAINING.items() for part in (f"--{name.replace('_', '-')}", value)]
    job = cluster.submit("python", "jobs/train.py", "--data", tiny_set, "--output", tmp_path / "job", *map(str, flags))
    assert job.returncode == 0, job.stdout
    run_train(TrainSettings(data=str(tiny_set), output=str(tmp_path / "local"), **SHORT_TRAINING))
    submitted, local = read_bundle(tmp_path / "job"), read_bundle(tmp_path / "local")
    # Not the fingerprints: the form of integers is calibrated by a library that promises no order of its sums.
    assert submitted.metrics[REFERENCE] == local.metrics[REFERENCE]
    assert submitted.training["data"] == local.training["data"]
    weights = local.weights()
    for name, array in submitted.weights().items():
        np.testing.assert_array_equal(array, weights[name], err_msg=name)


@pytest.mark.slow
def test_the_exit_code_is_the_jobs(cluster: Cluster, plate: Path, tiny_model: Path, tmp_path: Path) -> None:
    predict = ["python", "jobs/predict.py", "--model", tiny_model]
    wrong = cluster.submit(*predict, "--input", plate / "P1", "--output", tmp_path / "out", "--mask", "png")
    assert wrong.returncode == 1
    assert "error: '--mask' is not a flag of this command; did you mean --masks?" in wrong.stdout
    assert "failed with exit code 2" in wrong.stdout

    vanishing = cluster.submit(*predict, "--input", plate / "P1", "--output", "out")
    assert vanishing.returncode == 1
    assert "error: --output out: a submitted job runs in a copy" in vanishing.stdout

    missing = cluster.submit(*predict, "--input", "my_plate", "--output", tmp_path / "out")
    assert missing.returncode == 1
    assert "found nothing there" in missing.stdout and "uploaded copy of the working directory" in missing.stdout
    assert not (tmp_path / "out").exists()

    images = sorted((plate / "P1").glob("*.tif"))[:3]
    (tmp_path / "P1").mkdir()
    for image in images:
        shutil.copy(image, tmp_path / "P1")
    (tmp_path / "P1" / images[2].name).write_bytes(b"not an image")
    flags = ["--input", tmp_path / "P1", "--output", tmp_path / "out"]
    failed = cluster.submit(*predict, *flags)
    assert failed.returncode == 1
    assert "failed with exit code 3" in failed.stdout
    assert re.search(r"^3 sites = \d segmented \+ \d empty \+ 1 failed ", failed.stdout, re.M)
    assert cluster.submit(*predict, *flags, "--max-failed", "1").returncode == 0


@pytest.mark.slow
def test_a_stopped_job_is_finished_by_the_next(
    cluster: Cluster, tiny_model: Path, tmp_path: Path, segment: Callable[..., np.ndarray], until: Any
) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient

    look = ["--shape-px", "128", "128", "--nuclei", "4", "10", "--radius-px", "7", "11", "--bit-depth", "8"]
    plate = ["--kind", "plate", "--plate", "P2", "--wells", "96", *look]
    drawn = cluster.call([sys.executable, "jobs/synthesize.py", "--output", str(tmp_path), *plate])
    assert drawn.returncode == 0, drawn.stdout
    out = tmp_path / "out"
    flags = ["--input", tmp_path / "P2", "--model", tiny_model, "--output", out, "--sites-per-part", "1"]
    started = cluster.submit(
        *("python", "jobs/predict.py", *flags), flags=("--working-dir", ".", "--no-wait", "--submission-id", "victim")
    )
    assert started.returncode == 0, started.stdout
    client = JobSubmissionClient(cluster.dashboard)
    until(
        lambda: list(out.glob("sites/*/*.parquet")) or client.get_job_status("victim").is_terminal(), "the first part"
    )
    assert client.stop_job("victim")  # what `ray job stop` calls, without the time that it takes to start
    until(lambda: client.get_job_status("victim").is_terminal(), "the end of the job")
    assert client.get_job_status("victim") == JobStatus.STOPPED, client.get_job_logs("victim")
    before = {path: path.read_bytes() for path in (out / "sites").rglob("*.parquet")}
    assert 0 < len(before) < 96

    job = cluster.submit("python", "jobs/predict.py", *flags)
    assert job.returncode == 0, job.stdout
    account = r"^96 sites = 92 segmented \+ 4 empty \+ 0 failed \(of these, done before: (\d+)\)$"
    told = re.search(account, job.stdout, re.M)
    assert told, job.stdout
    # A task may have committed its part after its driver's end and before the next one's beginning.
    assert len(before) <= int(told[1]) < 96
    assert {path: path.read_bytes() for path in before} == before
    location = Location(str(out))
    stems = committed_stems(location)
    wells = read_parts(location, "sites", stems).column("Metadata_Well").to_pylist()
    assert sorted(wells) == [f"{row}{column:02d}" for row in "ABCDEFGH" for column in range(1, 13)]
    _assert_masks_equal_a_plain_loop(out, tmp_path / "P2", segment)
    nuclei = read_parts(location, "nuclei", stems).column("Metadata_Well").to_pylist()
    for well, mask in _masks(out).items():
        assert nuclei.count(well) == mask.max()
    assert not (out / "lease.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["found", "named", "alone"])
def test_a_local_call_joins_the_cluster_that_it_finds_or_is_told(
    cluster: Cluster, plate: Path, tiny_model: Path, tmp_path: Path, way: str
) -> None:
    # Where Ray leaves the address that `ray start` began at; elsewhere nothing is found.
    elsewhere = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))
    environment = {
        "found": {},
        "named": {"RAY_TMPDIR": str(elsewhere), "RAY_ADDRESS": cluster.address},
        "alone": {"RAY_TMPDIR": str(elsewhere)},
    }[way]
    flags = ["--input", str(plate / "P1"), "--model", str(tiny_model), "--output", str(tmp_path / "out")]
    try:
        ended = cluster.call([sys.executable, "jobs/predict.py", *flags], **environment)
    finally:
        shutil.rmtree(elsewhere)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.splitlines()[-1] == ACCOUNT
    cpus = os.cpu_count() if way == "alone" else CPUS
    assert re.search(rf"preflight took .* on {cpus} CPUs", ended.stdout), ended.stdout
    # A cluster that was joined goes on.
    assert _answers(f"{cluster.dashboard}/api/version")
