"""ROS images are decoded and rectified; needs no ROS."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from ovs3d_ros.sensors import pixels
from ovs3d_ros.sensors.calibration import CameraCalibration, make_rectifier
from ovs3d_ros.sensors.pixels import BitDepth
from ovs3d_ros.types import UserError

TOPIC = "/camera/image"
BAYER_RED = {"rggb": (0, 0), "bggr": (1, 1), "gbrg": (1, 0), "grbg": (0, 1)}  # row, column of a red pixel


@pytest.fixture
def rgb() -> np.ndarray:
    """A smooth RGB image [12, 16, 3]: smooth, so that interpolating mosaics and chroma loses little."""
    rows, columns = np.mgrid[0:12, 0:16]
    return np.stack([60 + 8 * columns, 40 + 10 * rows, 200 - 6 * columns], axis=-1).astype(np.uint8)


def decode(array: np.ndarray, encoding: str, size: tuple[int, int], bigendian: bool = False) -> np.ndarray:
    return pixels.decode_color(
        array.tobytes(), encoding, *size, array.nbytes // size[0], bigendian, TOPIC, BitDepth()
    )


@pytest.mark.parametrize(
    "encoding, order",
    [
        ("rgb8", [0, 1, 2]),
        ("bgr8", [2, 1, 0]),
        ("8UC3", [2, 1, 0]),
        ("rgba8", [0, 1, 2, 3]),
        ("bgra8", [2, 1, 0, 3]),
        ("8UC4", [2, 1, 0, 3]),
    ],
)
def test_channel_orders_are_undone_exactly(rgb, encoding, order):
    with_alpha = np.concatenate([rgb, np.full((12, 16, 1), 77, np.uint8)], axis=-1)
    assert np.array_equal(decode(with_alpha[..., order], encoding, (12, 16)), rgb)


@pytest.mark.parametrize(
    "encoding, order",
    [("rgb16", [0, 1, 2]), ("bgr16", [2, 1, 0]), ("rgba16", [0, 1, 2, 3]), ("bgra16", [2, 1, 0, 3])],
)
@pytest.mark.parametrize("bigendian", [False, True])
def test_16_bit_images_keep_the_upper_byte(rgb, encoding, order, bigendian):
    with_alpha = (
        np.concatenate([rgb, np.full((12, 16, 1), 77, np.uint8)], axis=-1).astype(np.uint16) * 256 + 13
    )
    array = with_alpha[..., order].astype(">u2" if bigendian else "<u2")
    assert np.array_equal(decode(array, encoding, (12, 16), bigendian), rgb)


@pytest.mark.parametrize("encoding, dtype", [("mono8", "u1"), ("8UC1", "u1"), ("mono16", "<u2")])
def test_grey_images_become_grey_rgb(rgb, encoding, dtype):
    grey = rgb[..., 0].astype(dtype) * (256 if dtype == "<u2" else 1)
    assert np.array_equal(decode(grey, encoding, (12, 16)), np.repeat(rgb[..., :1], 3, axis=-1))


@pytest.mark.parametrize("pattern", list(BAYER_RED))
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_patterns_are_decoded_to_the_right_colours(rgb, pattern, bits):
    row, column = BAYER_RED[pattern]
    mosaic = rgb[..., 1].copy()
    mosaic[row::2, column::2] = rgb[row::2, column::2, 0]
    mosaic[1 - row :: 2, 1 - column :: 2] = rgb[1 - row :: 2, 1 - column :: 2, 2]
    array = mosaic if bits == 8 else mosaic.astype("<u2") * 256
    decoded = decode(array, f"bayer_{pattern}{bits}", (12, 16)).astype(int)
    assert np.abs(decoded - rgb)[2:-2, 2:-2].max() <= 2


@pytest.mark.parametrize(
    "encoding, luma, chroma", [("yuv422", 1, 0), ("uyvy", 1, 0), ("yuv422_yuy2", 0, 1), ("yuyv", 0, 1)]
)
def test_yuv_422_follows_bt601(rgb, encoding, luma, chroma):
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255
    u = 128 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255
    v = 128 + (112.0 * r - 93.786 * g - 18.214 * b) / 255
    packed = np.empty((12, 16, 2))
    packed[..., luma] = y
    packed[:, 0::2, chroma] = (u[:, 0::2] + u[:, 1::2]) / 2
    packed[:, 1::2, chroma] = (v[:, 0::2] + v[:, 1::2]) / 2
    decoded = decode(np.round(packed).astype(np.uint8), encoding, (12, 16)).astype(int)
    assert np.abs(decoded - rgb).max() <= 9  # half the chroma is lost: 4 grey levels of red per column, twice


def test_row_padding_is_cut_and_may_lack_in_the_last_row(rgb):
    padded = np.zeros((12, 64), np.uint8)
    padded[:, :48] = rgb.reshape(12, 48)
    data = padded.tobytes()
    for buffer in (data, data[:-16]):
        assert np.array_equal(pixels.decode_color(buffer, "rgb8", 12, 16, 64, False, TOPIC, BitDepth()), rgb)


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (("rgb8", 12, 16, 40), "shorter than 16 pixels"),
        (("rgb8", 13, 16, 48), "truncated"),
        (("rgb8", 0, 16, 48), "image size 16x0"),
        (("rgb8", 12, 100_000, 300_000), "image size"),
        (("32FC1", 12, 16, 64), "is depth remapped"),
        (("jpeg", 12, 16, 48), "is not a colour image"),
    ],
)
def test_error_of_an_impossible_image_names_topic_and_problem(rgb, arguments, problem):
    with pytest.raises(UserError, match=f"{TOPIC}: .*{problem}"):
        pixels.decode_color(rgb.tobytes(), *arguments, False, TOPIC, BitDepth())


@pytest.mark.parametrize("bigendian", [False, True])
def test_depth_in_metres_and_in_millimetres_agree(bigendian):
    metres = np.array([[0.5, 1.25, 4.0], [0.0, 2.001, 9.999]], np.float32)
    order = ">" if bigendian else "<"
    floats, integers = metres.astype(order + "f4"), np.round(metres * 1000).astype(order + "u2")
    for array, encoding in ((floats, "32FC1"), (integers, "16UC1"), (integers, "mono16")):
        depth = pixels.decode_depth(array.tobytes(), encoding, 2, 3, array.nbytes // 2, bigendian, TOPIC)
        assert depth.dtype == np.float32
        np.testing.assert_allclose(depth, metres, atol=1e-6)


def test_depth_without_a_reading_is_zero():
    readings = np.array([[np.nan, np.inf, -1.0, 2.0]], np.float32)
    depth = pixels.decode_depth(readings.tobytes(), "32FC1", 1, 4, 16, False, TOPIC)
    assert depth.tolist() == [[0.0, 0.0, 0.0, 2.0]]


def test_colour_is_refused_as_depth(rgb):
    with pytest.raises(UserError, match="'rgb8' is not depth; publish 32FC1"):
        pixels.decode_depth(rgb.tobytes(), "rgb8", 12, 16, 48, False, TOPIC)


@pytest.mark.parametrize("extension, tolerance", [(".png", 0), (".jpg", 12)])
def test_compressed_images_are_decoded(rgb, extension, tolerance):
    data = cv2.imencode(extension, rgb[..., ::-1])[1].tobytes()
    assert np.abs(pixels.decompress_color(data, "", TOPIC, BitDepth()).astype(int) - rgb).max() <= tolerance
    with pytest.raises(UserError, match="neither JPEG nor PNG"):
        pixels.decompress_color(b"not an image", "", TOPIC, BitDepth())
    with pytest.raises(UserError, match="neither JPEG nor PNG"):
        pixels.decompress_color(b"", "", TOPIC, BitDepth())


def test_compressed_images_of_absurd_size_are_refused():
    """OpenCV raises its own error after one flipped bit in the header."""
    png = bytearray(cv2.imencode(".png", np.zeros((8, 8), np.uint16))[1].tobytes())
    png[16:24] = struct.pack(">II", 60000, 60000)  # IHDR: width and height, then its checksum
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    size = jpeg.find(b"\xff\xc0") + 5
    jpeg[size : size + 4] = struct.pack(">HH", 65000, 65000)
    for data in (png, jpeg):
        with pytest.raises(UserError, match=f"{TOPIC}: {len(data)} bytes of a broken image"):
            pixels.decompress_color(bytes(data), "", TOPIC, BitDepth())
    with pytest.raises(UserError, match=f"{TOPIC}: {len(png)} bytes of a broken image"):
        pixels.decompress_depth(bytes(12) + bytes(png), "16UC1; compressedDepth png", TOPIC)


def test_compressed_depth_is_decoded_in_both_encodings():
    metres = np.array([[0.5, 1.25, 4.0], [0.0, 2.0, 9.0]], np.float32)
    a, b = 100.0 * (100.0 + 1.0), 1.0 - 100.0 * (100.0 + 1.0) / 10.0  # depth quantisation 100, depth_max 10 m
    quantised = np.where(metres > 0, a / np.maximum(metres, 1e-6) + b, 0).astype(np.uint16)
    for format, image, header in (
        ("16UC1; compressedDepth png", (metres * 1000).astype(np.uint16), (0, 0.0, 0.0)),
        ("32FC1; compressedDepth png", quantised, (0, a, b)),
    ):
        data = struct.pack("<iff", *header) + cv2.imencode(".png", image)[1].tobytes()
        depth = pixels.decompress_depth(data, format, TOPIC)
        assert (depth[metres == 0] == 0).all()
        np.testing.assert_allclose(depth, metres, rtol=0.01)
        with pytest.raises(UserError, match="no 16-bit PNG"):
            pixels.decompress_depth(data[:20], format, TOPIC)
    with pytest.raises(UserError, match="no RVL image"):
        pixels.decompress_depth(data, "16UC1; compressedDepth rvl", TOPIC)


def encode_rvl(values: np.ndarray) -> bytes:
    """RVL as in listing 1 of the paper, one nibble after the other."""
    nibbles: list[int] = []

    def put(number: int) -> None:
        while True:
            low, number = number & 7, number >> 3
            nibbles.append(low | (8 if number else 0))
            if not number:
                return

    position, previous, pixels_ = 0, 0, values.astype(np.int64).ravel()
    while position < len(pixels_):
        for is_zero in (True, False):
            run = position
            while run < len(pixels_) and (pixels_[run] == 0) == is_zero:
                run += 1
            put(run - position)
            for value in () if is_zero else pixels_[position:run]:
                delta = int(value) - previous
                put((delta << 1) ^ (delta >> 63))
                previous = int(value)
            position = run
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        sum(n << (28 - 4 * k) for k, n in enumerate(nibbles[i : i + 8])) for i in range(0, len(nibbles), 8)
    ]
    return struct.pack(f"<{len(words)}I", *words)


def test_rvl_depth_is_decoded():
    rng = np.random.default_rng(0)
    depth = np.clip(rng.normal(1800, 400, (30, 40)), 0, 65535).astype(np.uint16)
    depth[rng.random((30, 40)) < 0.3] = 0
    depth[0, :5], depth[-1, -7:], depth[3, 3] = 0, 0, 65535
    for image in (depth, np.zeros((30, 40), np.uint16), np.full((30, 40), 7, np.uint16)):
        data = bytes(12) + struct.pack("<II", 40, 30) + encode_rvl(image)
        found = pixels.decompress_depth(data, "16UC1; compressedDepth rvl", TOPIC)
        np.testing.assert_allclose(found, image / 1000, rtol=1e-6)
    data = bytes(12) + struct.pack("<II", 40, 30) + encode_rvl(depth)
    for broken in (data[:200], data[:15], bytes(12) + struct.pack("<II", 99999, 1) + data[20:]):
        with pytest.raises(UserError, match="no RVL image"):
            pixels.decompress_depth(broken, "16UC1; compressedDepth rvl", TOPIC)


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_planar_yuv_is_decoded(rgb, encoding):
    i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)  # [18, 16]: Y, then U and V of a quarter each
    u, v = i420[12:15].reshape(6, 8), i420[15:].reshape(6, 8)
    chroma = np.stack([u, v] if encoding == "nv12" else [v, u], axis=-1).reshape(6, 16)
    planes = np.concatenate([i420[:12], chroma])
    for step, padding in ((16, 0), (24, 0), (20, 4)):  # right, wrong in the driver, padded
        data = np.pad(planes, ((0, 0), (0, padding))).tobytes()
        found = pixels.decode_color(data, encoding, 12, 16, step, False, TOPIC, BitDepth())
        assert found.shape == (12, 16, 3) and np.abs(found.astype(int) - rgb).max() <= 18
    with pytest.raises(UserError, match="truncated"):
        pixels.decode_color(planes.tobytes()[:-20], encoding, 12, 16, 16, False, TOPIC, BitDepth())
    with pytest.raises(UserError, match="even size"):
        pixels.decode_color(planes.tobytes(), encoding, 11, 16, 16, False, TOPIC, BitDepth())


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_grey_of_fewer_bits_is_as_bright_and_does_not_flicker(bits):
    bright = np.linspace(0, (1 << bits) - 1, 192).astype(np.uint16).reshape(12, 16)
    depth, dark = BitDepth(), bright // 64
    brightest = [
        pixels.decode_color(image.tobytes(), "mono16", 12, 16, 32, False, TOPIC, depth).max()
        for image in (bright, dark, bright)
    ]
    assert brightest == [255, 3, 255]
    png = cv2.imencode(".png", bright)[1].tobytes()
    assert pixels.decompress_color(png, "mono16; png", TOPIC, BitDepth()).max() == 255


def test_depth_of_the_plain_compressed_transport_is_decoded():
    metres = np.array([[0.5, 1.25, np.nan], [0.0, 2.0, -9.0]], np.float32)
    expected = np.array([[0.5, 1.25, 0.0], [0.0, 2.0, 0.0]], np.float32)
    png = cv2.imencode(".png", (expected * 1000).astype(np.uint16))[1].tobytes()
    tiff = cv2.imencode(".tiff", metres)[1].tobytes()
    for data, format in ((png, "16UC1; png compressed "), (png, "png"), (tiff, "32FC1; tiff compressed ")):
        np.testing.assert_allclose(pixels.decompress_depth(data, format, TOPIC), expected)
    grey = cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()
    with pytest.raises(UserError, match="holds uint8 pixels"):
        pixels.decompress_depth(grey, "png", TOPIC)
    with pytest.raises(UserError, match=f"{TOPIC}: format '16UC1; png compressed' is depth"):
        pixels.decompress_color(png, "16UC1; png compressed ", TOPIC, BitDepth())


def calibration(**changes) -> CameraCalibration:
    values = {
        "K": (100.0, 0, 79.5, 0, 100.0, 59.5, 0, 0, 1),
        "P": (0.0,) * 12,
        "D": (),
        "model": "plumb_bob",
        "size": (160, 120),
        **changes,
    }
    return CameraCalibration(**values)


def test_pixel_centres_move_by_half_a_pixel():
    camera = make_rectifier(calibration(), False, TOPIC).camera
    assert camera.K[:2, 2].tolist() == [80.0, 60.0]  # ROS counts pixel centres as integers


def test_binning_and_region_of_interest_change_intrinsics():
    camera = make_rectifier(calibration(offset=(20, 10), roi=(80, 60), binning=(2, 2)), False, TOPIC).camera
    assert (camera.width, camera.height) == (40, 30)
    assert camera.K[:2, 2].tolist() == [(80 - 20) / 2, (60 - 10) / 2]
    assert camera.K[0, 0] == 50.0


def test_rectified_images_use_P_and_are_not_remapped():
    projection = (90.0, 0, 70.5, 0, 0, 90.0, 55.5, 0, 0, 0, 1, 0)
    rectifier = make_rectifier(calibration(P=projection, D=(-0.3, 0.1, 0, 0, 0)), True, TOPIC)
    assert rectifier.maps is None
    assert rectifier.camera.K[0].tolist() == [90.0, 0.0, 71.0]


@pytest.mark.parametrize(
    "model, D, project",
    [
        ("plumb_bob", (-0.25, 0.06, 0.001, -0.001, 0.0), cv2.projectPoints),
        ("rational_polynomial", (-0.2, 0.05, 0.0, 0.0, 0.0, 0.05, 0.01, 0.0), cv2.projectPoints),
        ("equidistant", (0.05, 0.01, 0.0, 0.0), None),
    ],
)
def test_undistorted_point_lies_where_the_camera_projects_it(model, D, project):
    """A blob at the distorted image of a point moves to the point's rectified projection."""
    info = calibration(model=model, D=D)
    K = np.array(info.K).reshape(3, 3)
    rectifier = make_rectifier(info, False, TOPIC)
    point = np.array([[[0.35, -0.22, 1.0]]])
    if project is None:
        seen, _ = cv2.fisheye.projectPoints(point, np.zeros(3), np.zeros(3), K, np.array(D))
    else:
        seen, _ = project(point, np.zeros(3), np.zeros(3), K, np.array(D))
    u, v = seen.ravel()
    rows, columns = np.mgrid[0:120, 0:160]
    blob = 255 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / 8.0)
    image = np.repeat(blob[..., None], 3, axis=-1).round().astype(np.uint8)
    rectified = rectifier.rectify_color(image, TOPIC)[..., 0].astype(float)
    found = (
        np.array([(rectified * (columns + 0.5)).sum(), (rectified * (rows + 0.5)).sum()]) / rectified.sum()
    )
    expected = (rectifier.camera.K @ point[0, 0])[:2]
    assert np.abs(found - expected).max() < 0.3
    assert np.abs(np.array([u, v]) + 0.5 - expected).max() > 1.0  # the distortion is not negligible


def test_depth_is_resized_by_nearest_neighbour():
    rectifier = make_rectifier(calibration(), False, TOPIC)
    small = np.where(np.arange(80)[None, :] < 40, 1.0, 5.0).repeat(60, axis=0).astype(np.float32)
    depth = rectifier.rectify_depth(small, TOPIC)
    assert depth.shape == (120, 160)
    assert set(np.unique(depth)) == {1.0, 5.0}
    # Three columns for every pixel: the middle one counts.
    columns = np.arange(480, dtype=np.float32)[None].repeat(360, axis=0)
    np.testing.assert_array_equal(rectifier.rectify_depth(columns, TOPIC)[7], np.arange(1, 480, 3))
    with pytest.raises(UserError, match="register depth"):
        rectifier.rectify_depth(np.ones((120, 120), np.float32), TOPIC)


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"K": (0.0,) * 9}, "not calibrated"),
        ({"size": (0, 0)}, "an image of 0x0 pixels, binned by 1x1, is empty"),
        ({"binning": (1, 121)}, "an image of 160x120 pixels, binned by 1x121, is empty"),
        ({"K": (float("nan"),) * 9}, "finite"),
        ({"model": "cubist", "D": (0.1,)}, "'cubist' is not known"),
        ({"D": (float("nan"),) * 5}, "not finite"),
        ({"K": (1e6, 0, 80, 0, 1e6, 60, 0, 0, 1)}, "absurd"),
    ],
)
def test_useless_calibrations_are_refused(changes, problem):
    with pytest.raises(UserError, match=f"{TOPIC}: .*{problem}"):
        make_rectifier(calibration(**changes), False, TOPIC)


def test_image_of_another_size_is_refused(rgb):
    with pytest.raises(UserError, match="16x12 contradicts camera_info of 160x120"):
        make_rectifier(calibration(), False, TOPIC).rectify_color(rgb, TOPIC)
