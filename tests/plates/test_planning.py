from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as run_with
from hypothesis import strategies as st

from nucseg_ray.errors import NamingError, NucsegError, UsageError
from nucseg_ray.plates.manifest import MANIFEST, add_missing, extend
from nucseg_ray.plates.naming import FileName
from nucseg_ray.plates.planning import Choice, Plan, choose
from nucseg_ray.plates.schemes import SCHEMES
from nucseg_ray.plates.understanding import understand


def plan(paths: Iterable[str], *, root_name: str, scheme: str | None = None, **choice: Any) -> Plan:
    return choose(understand(paths, root_name=root_name, scheme=scheme), Choice(**choice))


def refusal(error: type[NucsegError], *paths: str, **settings: str | None) -> str:
    with pytest.raises(error) as caught:
        plan(paths, **({"root_name": "root"} | settings))
    return str(caught.value)


def rows(plan: Plan) -> list[tuple]:
    return [tuple(row.values()) for row in plan.manifest.to_pylist()]


STACK = [f"TimePoint_1/ZStep_{z}/P_B02_s{site}_w{w}.TIF" for z in (1, 2, 10) for site in (1, 2) for w in (1, 2)]


def test_planes_are_projected_lowest_first() -> None:
    planned = plan(STACK, root_name="P", channel="W2")
    assert planned.scheme == "imagexpress"
    assert planned.channels == ("w1", "w2")
    assert planned.unmatched == ()
    assert planned.manifest.schema == MANIFEST
    assert rows(planned) == [
        ("P", "B02", site, "1", "w2", [f"TimePoint_1/ZStep_{z}/P_B02_s{site}_w2.TIF" for z in (1, 2, 10)])
        for site in ("1", "2")
    ]


def test_one_plane_is_picked() -> None:
    planned = plan(STACK, root_name="P", channel="w1", z="10")
    assert planned.manifest["planes"].to_pylist() == [[f"TimePoint_1/ZStep_10/P_B02_s{s}_w1.TIF"] for s in (1, 2)]


@pytest.mark.parametrize("projection", ["TimePoint_1/P_B02_s1_w1.TIF", "TimePoint_1/ZStep_0/P_B02_s1_w1.TIF"])
def test_projection_of_the_instrument_is_taken_where_it_is_asked_for_or_all_there_is(projection: str) -> None:
    only = projection.replace("B02", "B03")
    listing = [*STACK, projection, only]
    for z in ("max", "mean", "best-focus"):
        planned = plan(listing, root_name="P", channel="w1", z=z).manifest["planes"].to_pylist()
        assert planned == [[f"TimePoint_1/ZStep_{z}/P_B02_s{s}_w1.TIF" for z in (1, 2, 10)] for s in (1, 2)] + [[only]]
    assert refusal(UsageError, *listing, channel="w1", z="projection") == (
        "--z projection: site root/B02/2_t1 has no such plane; found 1, 2, 10. Choose another, or --z max."
    )
    stored = plan(listing, root_name="P", channel="w1", z="projection", sites="1")
    assert stored.manifest["planes"].to_pylist() == [[projection], [only]]
    assert stored.whole.equals(stored.manifest)
    picked = plan(listing, root_name="P", channel="w1", z="2", wells="B02")
    assert picked.manifest["planes"].to_pylist()[0] == ["TimePoint_1/ZStep_2/P_B02_s1_w1.TIF"]


def test_plates_are_named_by_their_folders() -> None:
    paths = [f"{folder}DNA-01-A-01.tif" for folder in ("", "007/", "batch/P2/")]
    planned = plan(paths, root_name="root", channel=None)
    assert planned.manifest["plate"].to_pylist() == ["007", "P2", "root"]
    assert planned.manifest["planes"].to_pylist() == [[paths[1]], [paths[2]], [paths[0]]]


def test_plain_folder_takes_each_image_as_a_site() -> None:
    planned = plan(["b.PNG", "a/x.tif", "notes.txt"], root_name="folder", channel=None)
    assert (planned.scheme, planned.channels, planned.unmatched) == ("images", (), ())
    assert rows(planned) == [
        ("folder", "", "a__x", None, "", ["a/x.tif"]),
        ("folder", "", "b", None, "", ["b.PNG"]),
    ]


def test_previews_and_other_files_are_told_apart() -> None:
    names = ["DC_camera.tif", "P_B02_s1_w1.TIF", "P_B02_s1_w1_thumb.TIF", "P.HTD", "table.csv"]
    planned = plan(names, root_name="P", channel=None)
    assert planned.unmatched == ("DC_camera.tif",)
    assert planned.manifest.num_rows == 1


def test_given_scheme_overrules_the_look() -> None:
    names = ["DNA-01-A-01.tif", "P_B02_s1_w1.TIF", "P_B02_s2_w1.TIF"]
    planned = plan(names, root_name="P", channel=None, scheme="bbbc")
    assert planned.scheme == "bbbc"
    assert planned.manifest["planes"].to_pylist() == [["DNA-01-A-01.tif"]]
    assert planned.unmatched == ("P_B02_s1_w1.TIF", "P_B02_s2_w1.TIF")
    assert plan(names, root_name="P", channel=None, scheme="images").manifest.num_rows == 3


def test_two_schemes_are_refused() -> None:
    message = refusal(NamingError, "DNA-01-A-01.tif", "P_B02_s1_w1.TIF", "P_B02_s2_w1.TIF")
    assert message == (
        "root: expected one naming scheme, but found 1 images in 'bbbc' (such as DNA-01-A-01.tif) and 2 images in "
        "'imagexpress' (such as P_B02_s1_w1.TIF). Choose by --scheme bbbc or --scheme imagexpress, which leaves the "
        "others out."
    )


def test_scheme_of_a_few_names_only_is_refused() -> None:
    message = refusal(NamingError, "P_B02_s1_w1.TIF", "a.png", "b.png")
    assert message == (
        "root: 1 images are named as in the 'imagexpress' scheme (such as P_B02_s1_w1.TIF), but 2 are not (such as "
        "a.png). Choose --scheme imagexpress to leave those out, or --scheme images to take each image as a site of "
        "its own."
    )


def test_names_like_those_of_an_instrument_become_no_plain_images() -> None:
    names = [f"r01c01f01p01-ch{channel}x1.tiff" for channel in (1, 2)]
    assert refusal(NamingError, *names, "notes.png") == (
        "root: 2 images look like those of the 'operetta' scheme (such as r01c01f01p01-ch1x1.tiff), but none is as it "
        "writes them: expected names such as Images/r03c03f03p01-ch5sk1fk1fl1.tiff. Give a pattern by --scheme "
        "regex:..., or --scheme images to take each image as a site of its own."
    )
    assert plan(names, root_name="root", scheme="images").manifest.num_rows == 2


def test_nothing_to_segment_says_what_was_looked_for() -> None:
    assert refusal(NamingError, "a.csv", "b.HTD") == (
        "root: found no image among 2 files (such as a.csv, b.HTD): expected names that end in .png, .tif, .tiff, "
        ".jpg, .jpeg, .bmp. Point the input at the folder of a plate or of images."
    )
    assert "found no image among 0 files: expected" in refusal(NamingError)
    message = refusal(NamingError, "a.tif", scheme="operetta")
    assert message == (
        "root: none of 1 images (such as a.tif) is named as in the 'operetta' scheme: expected names such as "
        "Images/r03c03f03p01-ch5sk1fk1fl1.tiff. Leave --scheme out, or choose another."
    )


def test_unknown_scheme_names_the_closest() -> None:
    assert refusal(UsageError, "a.tif", scheme="imageexpress") == (
        "--scheme 'imageexpress' is not known (did you mean 'imagexpress'?): expected one of bbbc, imagexpress, "
        "cellvoyager, cq1, operetta, incell, scanr, micromanager, cellomics, folders, images, or "
        "'regex:(?P<well>[A-P]\\\\d\\\\d)_(?P<site>\\\\d+)_(?P<channel>\\\\w+)', a pattern of your own."
    )


def test_channel_has_to_be_chosen() -> None:
    assert refusal(UsageError, *STACK) == (
        "root: found the channels w1, w2; expected to be told which one holds the nuclei. Choose it by --channel."
    )
    names = ("DAPI-01-A-01.tif", "GFP-01-A-01.tif")
    assert refusal(UsageError, *names, channel="dpai") == (
        "--channel 'dpai' is not in root (did you mean 'DAPI'?): expected one of DAPI, GFP."
    )
    assert "is not in root: expected one of DAPI, GFP." in refusal(UsageError, *names, channel="5")
    assert plan(names, root_name="root", channel="dapi").manifest["channel"].to_pylist() == ["DAPI"]


def test_spellings_of_one_channel_are_one_channel() -> None:
    planned = plan(["dapi-01-A-01.tif", "DAPI-02-A-02.tif"], root_name="root", channel=None)
    assert planned.channels == ("DAPI",)
    assert planned.manifest["planes"].to_pylist() == [["dapi-01-A-01.tif"], ["DAPI-02-A-02.tif"]]
    assert planned.manifest["channel"].to_pylist() == ["DAPI", "DAPI"]


def test_what_no_name_tells_is_left_to_the_files() -> None:
    """They may hold channels and planes: it is known when they are read."""
    planned = plan(["a.tif", "b.tif"], root_name="root", channel="DAPI", z="3")
    assert (planned.channels, planned.names_planes) == ((), False)
    assert rows(planned) == [("root", "", name, None, "DAPI", [f"{name}.tif"]) for name in ("a", "b")]
    assert not plan(["DNA-01-A-01.tif"], root_name="root", z="3").names_planes
    assert plan(STACK, root_name="root", channel="w1", z="2").names_planes


def test_time_points_inside_files_are_sites_of_their_own() -> None:
    names = [f"ZStep_{z}/P_A0{n}_s1_w1.tif" for z in (1, 2) for n in (1, 2)]
    understood = understand(names, root_name="P")
    planned = choose(understood, Choice(timepoints="3,1-2", limit=4), unsettled=names[1:2])
    assert not planned.names_times
    files = ["ZStep_1/P_A01_s1_w1.tif", "ZStep_2/P_A01_s1_w1.tif"]
    assert rows(planned) == [("P", "A01", "1", time, "w1", files) for time in ("1", "2", "3")]
    assert [str(key) for key in planned.held_back] == [f"P/A02/1_t{time}" for time in (1, 2, 3)]
    assert choose(understood, Choice(timepoints="1", z="2")).manifest["planes"].to_pylist() == [[names[2]], [names[3]]]
    assert choose(understood, Choice(timepoints="1-9", limit=5, wells="A02")).manifest.num_rows == 5
    # Where names tell of them, some of these are chosen.
    named = plan([f"TimePoint_{time}/P_A01_s1_w1.tif" for time in (1, 2, 3)], root_name="P", timepoints="2-3")
    assert named.names_times and named.manifest["timepoint"].to_pylist() == ["2", "3"]


def test_site_without_the_channel_is_refused() -> None:
    names = [f"DNA-{n:02d}-A-{n:02d}.tif" for n in range(1, 13)] + ["GFP-03-A-03.tif", "GFP-05-A-05.tif"]
    assert refusal(NamingError, *names, channel="GFP") == (
        "root: 10 of 12 sites have no file of channel 'GFP' (such as root/A01/1, root/A02/1, root/A04/1); the first of "
        "them has DNA-01-A-01.tif. Expected one at every site. Restore the files, choose a channel that every site has "
        "(DNA), or leave such sites out with --settle-s 1."
    )
    assert choose(understand(names, root_name="P"), Choice(channel="GFP"), unsettled=()).manifest.num_rows == 2
    assert ", give one plate at a time, or" in refusal(NamingError, "DNA-01-A-01.tif", "GFP-02-A-02.tif", channel="GFP")


def test_two_files_for_one_plane_are_refused() -> None:
    message = refusal(NamingError, *STACK, "TimePoint_1/ZStep_2/Q_B02_s1_w1.tif", channel="w1")
    assert message == (
        "site root/B02/1_t1, channel 'w1': TimePoint_1/ZStep_2/P_B02_s1_w1.TIF and TimePoint_1/ZStep_2/Q_B02_s1_w1.tif "
        "both claim to be plane 2; expected one file. Move one away, or give the folder that holds only one of them."
    )
    message = refusal(NamingError, "a/b.png", "a__b.png")
    assert message.startswith("site root/a__b: a/b.png and a__b.png both claim to be its projection or only plane")
    assert "a.png and a.tif both claim" in refusal(NamingError, "a.png", "a.tif")


def test_plate_in_two_folders_is_refused() -> None:
    message = refusal(NamingError, "x/P/DNA-01-A-01.tif", "y/P/DNA-02-A-02.tif")
    assert message == (
        "plate 'P' is in two folders, 'x/P' and 'y/P' of root: expected one folder a plate. Rename one, or run them "
        "one by one into outputs of their own."
    )
    assert "plate 'root' is in two folders, '.' and 'root'" in refusal(
        NamingError, "DNA-01-A-01.tif", "root/DNA-02-A-02.tif"
    )


def test_plane_has_to_exist() -> None:
    assert refusal(UsageError, *STACK, channel="w1", z="3") == (
        "--z 3: site root/B02/1_t1 has no such plane; found 1, 2, 10. Choose another, or --z max."
    )
    message = refusal(UsageError, *STACK, "TimePoint_1/ZStep_0/P_B02_s3_w1.TIF", channel="w1", z="1")
    assert "site root/B02/3_t1 has no such plane; found one image without a number" in message


def test_unsafe_names_are_refused() -> None:
    assert "begins with a dot" in refusal(NamingError, "DNA-01-A-01.tif", root_name="..")
    assert "is not UTF-8" in refusal(NamingError, "x\udc80/P/DNA-01-A-01.tif")


SITES = st.sets(st.tuples(st.sampled_from(["P", "Q", "10", "9"]), st.integers(1, 12), st.integers(1, 3)), min_size=1)


@run_with(deadline=None)  # the machine may be busy
@given(sites=SITES, z_count=st.integers(1, 3), seed=st.randoms(use_true_random=False))
def test_plan_is_complete_and_the_order_of_the_listing_does_not_matter(sites, z_count, seed) -> None:
    scheme = SCHEMES["cellvoyager"]
    expected = {}
    listing = []
    for plate, column, site in sites:
        for channel in ("C01", "C02"):
            names = [FileName(plate, f"A{column:02d}", str(site), "1", z, channel) for z in range(1, z_count + 1)]
            paths = [scheme.format(name) for name in names]
            listing += paths
            if channel == "C02":
                expected[names[0].key("root")] = paths
    seed.shuffle(listing)
    planned = plan(listing, root_name="root", channel="c02")
    assert rows(planned) == [
        (key.plate, key.well, key.site, key.timepoint, "C02", expected[key]) for key in sorted(expected)
    ]


def test_200_000_files_plan_in_seconds() -> None:
    wells = [f"{row}{column:02d}" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)]
    listing = [
        f"Plate{plate}/Plate{plate}_{well}_T0001F{site:03d}L01A01Z{z:02d}C{channel:02d}.tif"
        for plate in range(3)
        for well in wells
        for site in range(1, 10)
        for z in range(1, 6)
        for channel in range(1, 5)
    ]
    assert len(listing) == 207_360
    start = time.process_time()
    planned = plan(listing, root_name="root", channel="C01")
    assert time.process_time() - start < 15  # 2.4 s on one core; the margin is for slow machines
    assert planned.manifest.num_rows == 3 * 384 * 9


def manifest_of(*paths: str) -> pa.Table:
    return plan(paths, root_name="P", channel=None).manifest


def test_manifest_survives_parquet(tmp_path) -> None:
    manifest = plan(STACK, root_name="P", channel="w1").manifest
    pq.write_table(manifest, tmp_path / "manifest.parquet")
    again = pq.read_table(tmp_path / "manifest.parquet")
    assert again.equals(manifest)
    assert again.schema == MANIFEST


def test_extend_keeps_the_old_rows_in_place() -> None:
    old = manifest_of("DNA-05-A-05.tif", "DNA-09-A-09.tif")
    new = manifest_of("DNA-01-A-01.tif", "DNA-07-A-07.tif", "DNA-09-A-09.tif")
    extended = extend(old, new, done=())
    assert extended["well"].to_pylist() == ["A05", "A09", "A01", "A07"]
    assert extended.schema == MANIFEST
    assert extend(extended, new, done=()).equals(extended)
    assert extend(old, old, done=()).equals(old)


def test_extend_tells_no_time_point_from_one() -> None:
    old = manifest_of("P_A01_s1_w1.tif")
    new = manifest_of("TimePoint_1/P_A01_s1_w1.tif")
    assert extend(old, new, done=())["timepoint"].to_pylist() == [None, "1"]


def test_extend_plans_a_site_that_is_not_done_anew() -> None:
    """More of its planes have come since it was first seen."""
    old = manifest_of("ZStep_1/P_A01_s1_w1.tif", "ZStep_1/P_A02_s1_w1.tif", "ZStep_1/P_A03_s1_w1.tif")
    new = manifest_of(*(f"ZStep_{z}/P_A0{n}_s1_w1.tif" for z in (1, 2) for n in (1, 2, 4)))
    done = {("P", "A01", "1", None), ("P", "A03", "1", None)}
    with pytest.raises(NamingError, match="^site P/A01/1: "):
        extend(old, new, done=done)
    extended = extend(old, new.slice(1), done=done)
    assert extended.schema == MANIFEST
    assert list(zip(extended["well"].to_pylist(), map(len, extended["planes"].to_pylist()), strict=True)) == [
        ("A01", 1),
        ("A02", 2),
        ("A03", 1),
        ("A04", 2),
    ]


def test_extend_refuses_a_site_read_from_other_files() -> None:
    old = manifest_of("ZStep_1/P_A01_s1_w1.tif")
    new = manifest_of("ZStep_1/P_A01_s1_w1.tif", "ZStep_2/P_A01_s1_w1.tif")
    with pytest.raises(NamingError) as caught:
        extend(old, new, done={("P", "A01", "1", None)})
    assert str(caught.value) == (
        "site P/A01/1: the manifest of the earlier run has channel 'w1' from ZStep_1/P_A01_s1_w1.tif, but now it is "
        "channel 'w1' from ZStep_1/P_A01_s1_w1.tif, ZStep_2/P_A01_s1_w1.tif. Restore the files and settings of the "
        "earlier run, or choose a new output."
    )


def held_back(*unsettled: str, names: list[str] = STACK, channel: str = "w2") -> tuple[list[str], list[str]]:
    """Return the sites that are planned and those that are held back while some files are still being written."""
    planned = choose(understand(names, root_name="P"), Choice(channel=channel), unsettled=unsettled)
    rows = planned.manifest.select(["plate", "site", "planes"]).to_pylist()
    return [f"{row['plate']}/{row['site']}:{len(row['planes'])}" for row in rows], [
        str(key) for key in planned.held_back
    ]


def test_a_site_with_an_unsettled_file_is_held_back() -> None:
    assert held_back() == (["P/1:3", "P/2:3"], [])
    assert held_back(STACK[2]) == (["P/1:3"], ["P/B02/2_t1"])
    # Also where the file is of another channel: the instrument has not done with the site.
    assert held_back(next(name for name in STACK if name.endswith("s1_w1.TIF"))) == (["P/2:3"], ["P/B02/1_t1"])
    assert held_back(*STACK) == ([], ["P/B02/1_t1", "P/B02/2_t1"])


def test_sites_that_lack_planes_or_the_channel_are_held_back_or_told_of() -> None:
    """Whether or not anything is young: a scan may pause, and a copy be broken off."""
    other = [name.replace("TimePoint_1", "Q/TimePoint_1") for name in STACK]
    begun = "TimePoint_1/ZStep_1/P_B03_s1_w1.TIF"
    names = [name for name in [*STACK, *other, begun] if name != "TimePoint_1/ZStep_10/P_B02_s2_w2.TIF"]
    expected = ["P/1:3", "Q/1:3", "Q/2:3"]
    assert held_back(names=names) == held_back(begun, names=names) == (expected, ["P/B02/2_t1", "P/B03/1_t1"])
    understood = understand(names, root_name="P")
    with pytest.raises(NamingError, match=r"1 of 5 sites have no file of channel 'w2' \(such as P/B03/1_t1"):
        choose(understood, Choice(channel="w2"))
    names.remove(begun)
    taken = choose(understand(names, root_name="P"), Choice(channel="w2"))
    assert [len(planes) for planes in taken.manifest["planes"].to_pylist()] == [3, 2, 3, 3]
    assert ([str(key) for key in taken.short], taken.held_back) == (["P/B02/2_t1"], ())
    assert choose(understood, Choice(channel="w2", sites="1", wells="B02")).short == ()
    assert choose(understood, Choice(channel="w1", z="1")).short == ()
    # Against its own plate, whatever others have.
    assert plan(["ZStep_1/P_A01_s1_w1.tif", *other], root_name="P", channel="w1").short == ()


def test_add_missing_takes_the_rest_whatever_the_known_rows_say() -> None:
    old = manifest_of("ZStep_1/P_A01_s1_w1.tif")
    new = manifest_of("ZStep_1/P_A01_s1_w1.tif", "ZStep_2/P_A01_s1_w1.tif", "ZStep_1/P_A02_s1_w1.tif")
    assert add_missing(old, new)["planes"].to_pylist() == [["ZStep_1/P_A01_s1_w1.tif"], ["ZStep_1/P_A02_s1_w1.tif"]]


def test_names_take_little_memory() -> None:
    names = [
        f"P/TimePoint_1/ZStep_{z}/X_{row}{column:02d}_s{site}_w{w}.TIF"
        for row in "ABCDEFGH"
        for column in range(1, 13)
        for site in range(1, 10)
        for w in (1, 2, 3)
        for z in (1, 2, 3, 4, 5)
    ]
    understand(names[:10], root_name="P")  # what stays in caches
    tracemalloc.start()
    understood = understand(names, root_name="P")
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(understood.paths) == len(names) == 12_960
    assert kept / len(names) < 60  # 8 a path, 3 numbers of 4, part of a site; an object a file would take 100 more
    assert peak / len(names) < 120
