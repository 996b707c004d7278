from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucseg_ray.errors import UsageError
from nucseg_ray.storage.locations import Location


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Location("a/../b").uri == f"{tmp_path}/b"
    assert Location("b/") == Location(f"file://{tmp_path}/b")
    monkeypatch.chdir("/")
    assert Location("~").uri == str(Path.home())


@pytest.mark.parametrize(
    ("uri", "path", "is_local", "name", "parent"),
    [
        ("/data/x", "/data/x", True, "x", "/data"),
        ("/data", "/data", True, "data", "/"),
        ("/", "/", True, "", "/"),
        ("s3://bucket/a/b/", "bucket/a/b", False, "b", "s3://bucket/a"),
        ("s3://bucket", "bucket", False, "bucket", "s3://bucket"),
        ("memory://a/b", "/a/b", False, "b", "memory://a"),
    ],
)
def test_the_forms_of_a_place(uri: str, path: str, is_local: bool, name: str, parent: str) -> None:
    location = Location(uri)
    assert (location.path, location.is_local, location.name, location.parent.uri) == (path, is_local, name, parent)


@pytest.mark.parametrize("root", ["/data", "/", "s3://bucket", "s3://bucket/x", "memory://", "memory://m"])
@given(child=st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
def test_children_keep_their_names(root: str, child: str) -> None:
    levels = child.split("/")
    if any(level in ("", ".", "..") for level in levels):
        with pytest.raises(UsageError):
            Location(root) / child
        return
    there = Location(root) / child
    assert there.relative_to(Location(root)) == child
    assert there.is_local == Location(root).is_local
    assert pickle.loads(pickle.dumps(there)) == there


@pytest.mark.parametrize("name", ["a::b", "50%", "100%25", "#1", "[ab]*?", " ~", "ä b=c"])
def test_odd_names_are_written_and_read(out: Location, name: str) -> None:
    there = out / f"{name}.bin"
    there.fs.makedirs(out.path, exist_ok=True)
    there.fs.pipe_file(there.path, b"here")
    assert there.fs.cat_file(there.path) == b"here"
    if out.is_local:
        assert (Path(out.path) / f"{name}.bin").read_bytes() == b"here"


def test_s3_is_reached_without_remembered_listings() -> None:
    fs = Location("s3://bucket/x").fs
    assert fs.dircache.use_listings_cache is False
    assert fs.max_concurrency == 1


@pytest.mark.parametrize(
    "uri", ["s3://KEY:geheim@bucket/x", "sftp://me:geheim@host/x", "https://host/x?X-Amz-Signature=geheim"]
)
def test_credentials_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(UsageError, match="environment") as caught:
        Location(uri)
    assert "geheim" not in str(caught.value)


def test_names_with_colons_and_at_are_no_credentials() -> None:
    assert Location("s3://bucket/a:b@c").path == "bucket/a:b@c"


def test_an_unknown_protocol_names_the_closest() -> None:
    with pytest.raises(UsageError, match=r"memry://\. Did you mean memory://"):
        Location("memry://bucket")
    with pytest.raises(UsageError, match="empty"):
        Location("")


def test_not_below() -> None:
    with pytest.raises(UsageError, match="below /data"):
        Location("/database/x").relative_to(Location("/data"))
