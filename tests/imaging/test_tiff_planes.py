"""Files of many planes as tifffile, ImageJ and microscopes write them: which page is which, names, damage."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from nucseg_ray.errors import ChoiceError, DecodeError
from nucseg_ray.imaging.codecs import decode_image, decode_planes

RNG = np.random.default_rng(11)
# Channels, planes, rows, columns: all different, so that no two axes can be confused unseen.
CZ = RNG.integers(0, 65_535, (3, 4, 18, 25), np.uint16, endpoint=True)
GREY8 = RNG.integers(0, 255, (18, 25), np.uint8, endpoint=True)
NAMES = ["DAPI", "GFP", "RFP"]


def written(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **{"photometric": "minisblack", **options})
    return buffer.getvalue()


def several(*images: tuple[np.ndarray, dict[str, Any]], **writer: Any) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **writer) as tiff:
        for pixels, options in images:
            tiff.write(pixels, photometric="minisblack", **options)
    return buffer.getvalue()


def all_planes(data: bytes) -> np.ndarray:
    """Decode every plane of a file: (C, Z, Y, X), or with the samples of colour behind."""
    planes = decode_planes(data, name="a.tif", unnamed_pages="Z")
    return np.stack([[planes.plane(c, z) for z in range(planes.n_z)] for c in range(planes.n_channels)])


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="uncompressed"),
        pytest.param({"compression": "lzw", "predictor": True}, id="lzw"),
        pytest.param({"compression": "zlib"}, id="deflate"),
        pytest.param({"compression": "zstd"}, id="zstd"),
        pytest.param({"compression": "zstd", "tile": (16, 16), "bigtiff": True}, id="zstd tiles in a big tiff"),
        pytest.param({"byteorder": ">"}, id="big-endian"),
        pytest.param({"metadata": None}, id="nothing said"),
        pytest.param({"ome": True, "metadata": {"axes": "ZYX"}}, id="ome"),
        pytest.param({"imagej": True, "photometric": None, "metadata": {"axes": "ZYX"}}, id="imagej"),
        pytest.param({"truncate": True}, id="one page that stands for all"),
    ],
)
def test_pages_are_planes_lowest_first(options: dict[str, Any]) -> None:
    found = all_planes(written(CZ[0], **options))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, CZ[:1])


def test_pages_of_which_nothing_is_said_are_what_the_caller_says() -> None:
    data = written(CZ[:, 0], metadata=None)
    with pytest.raises(
        ChoiceError, match=r"^a\.tif: .*found 3 pages of which it says nothing.*--z max.*--channel with"
    ):
        decode_planes(data, name="a.tif")
    planes = decode_planes(data, name="a.tif", unnamed_pages="C")
    assert (planes.channels, planes.n_z) == (("", "", ""), 1)
    np.testing.assert_array_equal([planes.plane(c, 0) for c in range(3)], CZ[:, 0])
    assert decode_planes(data, name="a.tif", unnamed_pages="Z").n_z == 3
    with_channels = _by_tifffile(CZ, "QCYX")
    with pytest.raises(ChoiceError, match=r"axes QCYX"):
        decode_planes(with_channels, name="a.tif", unnamed_pages="C")
    planes = decode_planes(with_channels, name="a.tif", unnamed_pages="Z")
    assert (planes.n_channels, planes.n_z) == (4, 3)


def test_jpeg_in_tiff_is_close_and_in_rgb_order() -> None:
    flat = np.full((2, 32, 32, 3), (200, 90, 20), np.uint8)
    flat[1] = (20, 90, 200)
    found = all_planes(written(flat, photometric="rgb", compression="jpeg"))
    assert found.shape == (1, 2, 32, 32, 3)
    assert np.abs(found[0].astype(int) - flat).max() <= 4


@pytest.mark.parametrize("planar", [False, True])
def test_samples_of_colour_are_no_channels(planar: bool) -> None:
    colour = RNG.integers(0, 255, (4, 18, 25, 3), np.uint8, endpoint=True)
    pixels = np.moveaxis(colour, -1, 1).copy() if planar else colour
    data = written(pixels, photometric="rgb", planarconfig="separate" if planar else "contig")
    assert decode_planes(data, name="a", unnamed_pages="Z").channels == ("",)
    np.testing.assert_array_equal(all_planes(data)[0], colour)


def _by_tifffile(pixels: np.ndarray, axes: str) -> bytes:
    return written(pixels, metadata={"axes": axes})


def _by_tifffile_truncated(pixels: np.ndarray, axes: str) -> bytes:
    return written(pixels, metadata={"axes": axes}, truncate=True)


def _by_ome(pixels: np.ndarray, axes: str) -> bytes:
    return written(pixels, ome=True, metadata={"axes": axes})


@settings(max_examples=60, deadline=None)
@given(
    st.permutations("TCZ"),
    st.tuples(st.just(1), st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from([_by_tifffile, _by_tifffile_truncated, _by_ome]),
    st.sampled_from([np.uint8, np.uint16]),
)
def test_any_order_of_axes_gives_the_same_planes(
    order: list[str], sizes: tuple[int, int, int], write: Callable[[np.ndarray, str], bytes], dtype: type
) -> None:
    size = dict(zip("TCZ", sizes, strict=True))
    expected = CZ[: size["C"], : size["Z"]].astype(dtype)
    from_tcz = [("T", "C", "Z").index(axis) for axis in order]
    pixels = np.ascontiguousarray(expected[np.newaxis].transpose(*from_tcz, 3, 4))
    np.testing.assert_array_equal(all_planes(write(pixels, "".join(order) + "YX")), expected)


@settings(max_examples=30, deadline=None)
@given(st.permutations("TCZ"), st.sampled_from([_by_tifffile, _by_tifffile_truncated, _by_ome]))
def test_time_points_are_told_apart_from_planes(order: list[str], write: Callable[[np.ndarray, str], bytes]) -> None:
    times = np.stack([CZ, CZ[::-1, ::-1] // 2])
    pixels = np.ascontiguousarray(times.transpose(*(("T", "C", "Z").index(axis) for axis in order), 3, 4))
    planes = decode_planes(write(pixels, "".join(order) + "YX"), name="a.tif")
    assert (planes.n_times, planes.n_channels, planes.n_z) == (2, 3, 4)
    for t, c, z in itertools.product(range(2), range(3), range(4)):
        np.testing.assert_array_equal(planes.plane(c, z, t), times[t, c, z])


def test_an_imagej_movie_has_time_points() -> None:
    data = written(np.swapaxes(CZ, 0, 1), imagej=True, photometric=None, metadata={"axes": "TCYX"})
    planes = decode_planes(data, name="a")
    assert (planes.n_times, planes.n_channels, planes.n_z) == (4, 3, 1)
    np.testing.assert_array_equal(planes.plane(2, 0, 3), CZ[2, 3])


def test_an_imagej_hyperstack_has_its_channels_between_its_planes() -> None:
    labels = [f"{name}-z" for _ in range(4) for name in NAMES]
    data = written(
        np.swapaxes(CZ, 0, 1),
        imagej=True,
        photometric=None,
        resolution=(1 / 0.65, 1 / 0.65),
        metadata={"axes": "ZCYX", "unit": "um", "Labels": labels},
    )
    planes = decode_planes(data, name="a")
    assert planes.channels == ("DAPI-z", "GFP-z", "RFP-z")
    assert planes.pixel_size_um == pytest.approx(0.65, rel=1e-6)
    np.testing.assert_array_equal(all_planes(data), CZ)


def test_ome_names_channels_and_the_size_of_pixels() -> None:
    metadata = {"axes": "CZYX", "Channel": {"Name": NAMES}, "PhysicalSizeX": 0.325, "PhysicalSizeY": 0.325}
    planes = decode_planes(written(CZ, ome=True, metadata=metadata), name="a")
    assert (planes.channels, planes.n_z, planes.pixel_size_um) == (tuple(NAMES), 4, 0.325)
    np.testing.assert_array_equal(planes.plane(2, 1), CZ[2, 1])


def test_only_the_plane_asked_for_is_decoded() -> None:
    """The others may even be damaged; whoever asks for one of these is told its page."""
    data = bytearray(written(CZ[0], compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        start, size = tiff.pages[2].dataoffsets[0], tiff.pages[2].databytecounts[0]
    data[start : start + size] = b"\xff" * size
    planes = decode_planes(bytes(data), name="plate/A01.tif", unnamed_pages="Z")
    for z in (0, 1, 3):
        np.testing.assert_array_equal(planes.plane(0, z), CZ[0, z])
    with pytest.raises(DecodeError, match=r"^plate/A01\.tif, page 3: cannot be decoded.*damaged$"):
        planes.plane(0, 2)


def test_a_stack_cut_short_gives_its_first_planes() -> None:
    whole = written(CZ[0], truncate=True)
    with tifffile.TiffFile(io.BytesIO(whole)) as tiff:
        end = tiff.series[0].dataoffset + 3 * CZ[0, 0].nbytes
    planes = decode_planes(whole[:end], name="a.tif", unnamed_pages="Z")
    np.testing.assert_array_equal(planes.plane(0, 2), CZ[0, 2])
    with pytest.raises(DecodeError, match=r"^a\.tif, page 4: .*cut short"):
        planes.plane(0, 3)


def test_small_images_made_of_the_image_are_left_out() -> None:
    large = CZ[0].repeat(8, axis=1).repeat(8, axis=2)
    thumb = several((CZ[0, 0], {"metadata": None}), (CZ[0, 0, ::2, ::2].copy(), {"metadata": None, "subfiletype": 1}))
    np.testing.assert_array_equal(all_planes(thumb), CZ[:1, :1])
    pyramid = several(
        (large, {"subifds": 1, "metadata": {"axes": "ZYX"}}),
        (CZ[0].repeat(4, 1).repeat(4, 2), {"subfiletype": 1}),
        ome=True,
    )
    np.testing.assert_array_equal(all_planes(pyramid)[0], large)


PART_OF_A_SET = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="25" SizeY="18" SizeC="2" '
    'SizeZ="2" SizeT="1"><Channel ID="Channel:0:0" Name="DAPI"/><Channel ID="Channel:0:1" Name="GFP"/>'
    '<TiffData IFD="0" FirstC="0" FirstZ="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
    '<TiffData IFD="0" FirstC="1" FirstZ="0" PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>'
    "</Pixels></Image></OME>"
)


def test_a_file_of_one_page_is_one_plane_whatever_set_it_belongs_to() -> None:
    data = written(CZ[0, 0], metadata=None, description=PART_OF_A_SET)
    np.testing.assert_array_equal(all_planes(data), CZ[:1, :1])


def _in_set(files: list[str], *, channels: list[str], n_z: int, order: str = "XYZCT") -> str:
    """OME-XML of a set: each file holds all planes of one image, in the order of the dimensions."""
    named = "".join(f'<Channel ID="Channel:{n}" Name="{name}"/>' for n, name in enumerate(channels))
    images = "".join(
        f'<Image ID="Image:{n}"><Pixels DimensionOrder="{order}" ID="Pixels:{n}" PhysicalSizeX="0.5" '
        f'PhysicalSizeY="0.5" SizeC="{len(channels)}" SizeT="1" SizeX="25" SizeY="18" SizeZ="{n_z}" Type="uint16">'
        f'{named}<TiffData IFD="0" FirstC="0" FirstZ="0" FirstT="0" PlaneCount="{n_z * len(channels)}">'
        f'<UUID FileName="{file}">urn:uuid:{n}</UUID></TiffData></Pixels></Image>'
        for n, file in enumerate(files)
    )
    return f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">{images}</OME>'


@pytest.mark.parametrize(("order", "pages"), [("XYZCT", CZ), ("XYCZT", CZ.swapaxes(0, 1))])
@pytest.mark.parametrize("name", ["P_MMStack_Pos1.ome.tif", "renamed.tif"])
def test_a_file_of_a_set_gives_the_planes_that_are_its_own(order: str, pages: np.ndarray, name: str) -> None:
    """As Micro-Manager writes positions: by its name, or once it is renamed, by its identity."""
    files = [f"P_MMStack_Pos{n}.ome.tif" for n in range(3)]
    text = _in_set(files, channels=NAMES, n_z=4, order=order)
    data = written(pages.reshape(12, 18, 25), metadata=None, description=text)
    planes = decode_planes(data, name=f"plate/{name}")
    assert (planes.channels, planes.n_z, planes.pixel_size_um) == (tuple(NAMES), 4, 0.5)
    found = np.stack([[planes.plane(c, z) for z in range(4)] for c in range(3)])
    np.testing.assert_array_equal(found, CZ)


def test_a_file_of_a_set_may_hold_some_of_the_channels() -> None:
    def tiff_data(file: str, channel: int, height: int, page: int) -> str:
        return (
            f'<TiffData IFD="{page}" FirstC="{channel}" FirstZ="{height}"><UUID FileName="{file}">u</UUID></TiffData>'
        )

    places = [tiff_data("a.tif", 1, height, 3 - height) for height in range(4)]  # the highest comes first
    places += [tiff_data("b.tif", channel, height, 4 * channel + height) for channel in (0, 2) for height in range(4)]
    text = _in_set(["b.tif"], channels=NAMES, n_z=4)
    begin, end = text.index("<TiffData"), text.index("</Pixels>")
    text = text[:begin] + "".join(places) + text[end:]
    data = written(CZ[1, ::-1], metadata=None, description=text)
    planes = decode_planes(data, name="a.tif")
    assert (planes.channels, planes.n_z) == (("GFP",), 4)
    np.testing.assert_array_equal(np.stack([planes.plane(0, z) for z in range(4)]), CZ[1])
    with pytest.raises(ChoiceError, match="describe a set of files"):  # pages that it does not have
        decode_planes(written(CZ[0], metadata=None, description=text), name="b.tif")
    two = _in_set(["a.tif", "a.tif", "c.tif"], channels=["", ""], n_z=2)
    with pytest.raises(ChoiceError, match="describe a set of files"):  # two images in one file
        decode_planes(written(CZ[0], metadata=None, description=two), name="a.tif")


def test_a_file_that_holds_some_planes_of_a_channel_is_refused() -> None:
    """The rest of the stack is in another file: half of it would look like all of it."""
    halves = "".join(
        f'<TiffData IFD="0" FirstZ="{2 * half}" PlaneCount="2"><UUID FileName="{name}.tif">u</UUID></TiffData>'
        for half, name in enumerate("ab")
    )
    text = _in_set(["a.tif"], channels=["DAPI"], n_z=4)
    begin, end = text.index("<TiffData"), text.index("</Pixels>")
    for name in "ab":
        data = written(CZ[0, :2], metadata=None, description=text[:begin] + halves + text[end:])
        with pytest.raises(ChoiceError, match=f"^{name}.tif: its OME metadata describe a set of files"):
            decode_planes(data, name=f"{name}.tif")


@pytest.mark.parametrize(
    ("samples", "photometric"), [(2, "minisblack"), (4, "minisblack"), (4, "rgb"), (4, "separated")]
)
def test_samples_that_may_be_channels_are_refused(samples: int, photometric: str) -> None:
    pixels = np.moveaxis(CZ[:1, :samples], 1, -1)[0].copy()
    options = {"extrasamples": [0] * (samples - {"minisblack": 1, "rgb": 3, "separated": 4}[photometric])}
    data = written(pixels, photometric=photometric, planarconfig="contig", metadata=None, **options)
    with pytest.raises(ChoiceError, match=rf"^a\.tif: .*found {samples} samples a pixel, of which nothing says"):
        decode_planes(data, name="a.tif").plane(0, 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(written(CZ), r"found 3 x 4 of which nothing says what they are \(axes QQYX\)", id="two unnamed"),
        pytest.param(_by_tifffile(CZ, "QZYX"), r"found 3 x 4 of which nothing says.*\(axes QZYX\)", id="one unnamed"),
        pytest.param(_by_tifffile(CZ, "RZYX"), "found 3 tiles", id="tiles"),
        pytest.param(
            several((CZ[0], {"metadata": {"axes": "ZYX"}}), (CZ[1], {"metadata": {"axes": "ZYX"}}), ome=True),
            "found 2 images: that of page 1 .* that of page 5",
            id="two images of an ome-tiff",
        ),
        pytest.param(
            several((CZ[0, 0], {"metadata": None}), (GREY8[:9], {"metadata": None})),
            r"found 2 images: that of page 1 is \(18, 25\) uint16, that of page 2 is \(9, 25\) uint8",
            id="pages that differ",
        ),
        pytest.param(
            several((CZ[0, 0], {"metadata": None, "description": PART_OF_A_SET}), (CZ[1, 0], {"metadata": None})),
            "describe a set of files",
            id="pages of a set of files",
        ),
    ],
)
def test_what_nobody_can_tell_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(ChoiceError, match=rf"^plate/A01\.ome\.tif: .*{message}"):
        decode_planes(data, name="plate/A01.ome.tif", unnamed_pages="Z")


def test_one_image_is_asked_for_and_several_are_refused() -> None:
    for axes in ("CZYX", "TZYX"):
        with pytest.raises(DecodeError, match="a: expected a TIFF of one page, found 12"):
            decode_image(_by_ome(CZ, axes), name="a")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([_by_ome, _by_tifffile_truncated]), st.data())
def test_damage_anywhere_raises_nothing_else(write: Callable[[np.ndarray, str], bytes], data: st.DataObject) -> None:
    whole = bytearray(write(CZ[:2, :2], "CZYX"))
    for _ in range(data.draw(st.integers(1, 6))):
        # The header, the pages and their tags; pixels may say anything.
        place = data.draw(st.sampled_from([*range(700), *range(len(whole) - 600, len(whole))]))
        whole[place] = data.draw(st.integers(0, 255))
    refusal, found = "odd", []
    try:
        planes = decode_planes(bytes(whole), name="odd")
        assert len(planes.channels) == planes.n_channels
        assert planes.pixel_size_um is None or 0.01 <= planes.pixel_size_um <= 10
        places = itertools.product(range(min(planes.n_channels, 3)), range(min(planes.n_z, 3)))
        found = [planes.plane(c, z) for c, z in places]
    except (DecodeError, ChoiceError) as error:
        refusal = str(error)
    assert "odd" in refusal
    assert all(plane.dtype in (np.uint8, np.uint16) for plane in found)
