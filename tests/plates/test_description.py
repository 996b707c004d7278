"""What a dry run tells, word for word."""

from __future__ import annotations

from nucseg_ray.plates.description import PLATES_SHOWN, describe, describe_plan
from nucseg_ray.plates.planning import Choice, choose
from nucseg_ray.plates.understanding import understand


def told(*paths: str, root_name: str = "in", unsettled: tuple[str, ...] = (), **choice: str | int) -> list[str]:
    understood = understand(paths, root_name=root_name)
    chosen = Choice(**choice)  # type: ignore[arg-type]
    return describe(understood) + describe_plan(choose(understood, chosen, unsettled=unsettled), chosen)


def imagexpress(plate: str, wells: str, sites: int, channels: int = 2) -> list[str]:
    return [
        f"{plate}/TimePoint_1/ZStep_{z}/{plate}_{well}_s{site}_w{w}.TIF"
        for well in wells.split()
        for site in range(1, sites + 1)
        for w in range(1, channels + 1)
        for z in (0, 1, 2)
    ]


def test_two_plates_with_gaps() -> None:
    names = [*imagexpress("P1", "A01 A02 B01", 10), *imagexpress("P2", "AA03", 2, channels=1)]
    names.remove("P1/TimePoint_1/ZStep_2/P1_A02_s4_w2.TIF")
    names = [name for name in names if "P1_B01_s10_" not in name]
    names += ["P1/P1.HTD", "P1/odd.tif", "P1/TimePoint_1/ZStep_1/P1_A01_s1_w1_thumb.TIF", "P1/x.log"]
    assert told(*names, channel="w1", limit=3, wells="A01-B02") == [
        "scheme: imagexpress (Molecular Devices ImageXpress (MetaXpress), BBBC006, BBBC021, BBBC022); 179 images, such "
        "as P1/TimePoint_1/ZStep_0/P1_A01_s10_w1.TIF",
        "plates: 2; sites: 31",
        "  P1: wells: A01, A02, B01; sites: 1, 2, 3 ... 10 (10); time points: 1; z: 1, 2 and projections",
        "    no images of these wells between A01 and B02: B02",
        "    missing against the other wells: 1 sites (such as P1/B01/10_t1)",
        "    fewer files than others: 1 sites (such as P1/A02/4_t1)",
        "  P2: wells: AA03; sites: 1, 2; time points: 1; z: 1, 2 and projections",
        "channels: w1, w2 (at 29 of 31 sites)",
        "left out: 1 images that do not follow the scheme (such as P1/odd.tif)",
        "no images to segment: 1 previews, 2 other files",
        "to segment: 3 sites in channel w1 (--wells A01-B02, --limit 3; the listing has 31)",
        "  first: P1/A01/1_t1 from P1/TimePoint_1/ZStep_1/P1_A01_s1_w1.TIF, the max of 2 planes",
        "  last: P1/A01/3_t1 from P1/TimePoint_1/ZStep_1/P1_A01_s3_w1.TIF, the max of 2 planes",
    ]


def test_a_folder_of_images() -> None:
    assert told("b.png", "a/c.tif", "readme.txt") == [
        "scheme: images (any other images: each is a site of its own, named by its path); 2 images, such as a/c.tif",
        "plates: 1; sites: 2",
        "  in: sites: a__c, b",
        "channels: the names tell of none",
        "no images to segment: 0 previews, 1 other files",
        "to segment: 2 sites",
        "  first: in/a__c from a/c.tif",
        "  last: in/b from b.png",
    ]


def test_wells_that_are_counted_planes_and_what_is_still_being_written() -> None:
    names = [f"Image/W{well:04d}F0001T0001Z{z:03d}C1.tif" for well in (1, 5) for z in (1, 2, 3)]
    assert told(*names, unsettled=(names[-1],), z="mean") == [
        "scheme: cq1 (Yokogawa CQ1 and CQ3000); 6 images, such as Image/W0001F0001T0001Z001C1.tif",
        "plates: 1; sites: 2",
        "  in: wells: W0001, W0005; sites: 1; time points: 1; z: 1, 2, 3",
        "channels: C1",
        "left for the next run: 1 sites (such as in/W0005/1_t1); see --settle-s",
        "to segment: 1 sites in channel C1",
        "  first: in/W0001/1_t1 from Image/W0001F0001T0001Z001C1.tif, the mean of 3 planes",
    ]


def test_many_plates_are_told_in_few_lines() -> None:
    lines = told(*(f"P{number:03d}/DNA-01-A-01.tif" for number in range(PLATES_SHOWN + 30)))
    assert lines[1] == "plates: 50; sites: 50"
    assert lines[2] == "  P000: wells: A01; sites: 1"
    assert lines[2 + PLATES_SHOWN] == "  and 30 more: P020, P021, P022 ... P049 (30)"
    assert len(lines) == PLATES_SHOWN + 7
