"""Lens distortion is removed; the colours of the test picture are a function of the viewing ray."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import datasets_on_disk as disk
from PIL import Image

from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.types import UserError

K = np.array([[60.0, 0.0, 33.0], [0.0, 57.0, 22.0], [0.0, 0.0, 1.0]])


def distort(rays: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    """Brown-Conrady forward model of rays x/z, y/z [..., 2], after the documentation of COLMAP and OpenCV."""
    k1, k2, p1, p2, k3 = coefficients
    x, y = rays[..., 0], rays[..., 1]
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )


def pixel_rays(camera_matrix: np.ndarray) -> np.ndarray:
    """x/z, y/z of the pixel centres [48, 64, 2] of a pinhole."""
    centres = np.stack(np.meshgrid(np.arange(disk.WIDTH) + 0.5, np.arange(disk.HEIGHT) + 0.5), axis=-1)
    return (centres - camera_matrix[:2, 2]) / camera_matrix[[0, 1], [0, 1]]


def photograph(coefficients: tuple[float, ...]) -> np.ndarray:
    """The photograph of `colour_of` through a distorting lens."""
    target = pixel_rays(K)
    rays = target.copy()
    for _ in range(100):  # fixed point of distort(rays) = target
        rays = rays - (distort(rays, coefficients) - target)
    assert np.abs(distort(rays, coefficients) - target).max() < 1e-9
    return colour_of(rays)


def colour_of(rays: np.ndarray) -> np.ndarray:
    colour = np.stack(
        [128 + 220 * rays[..., 0], 128 + 220 * rays[..., 1], np.full(rays.shape[:2], 77.0)], axis=-1
    )
    return np.clip(np.rint(colour), 0, 255).astype(np.uint8)


def write(root, coefficients: tuple[float, ...]):
    disk.write_images(root)
    Image.fromarray(photograph(coefficients)).save(root / "images" / "a.png")
    document = disk.transforms()
    keys = dict(zip(("k1", "k2", "p1", "p2", "k3"), coefficients, strict=False))
    keys.update(fl_x=K[0, 0], fl_y=K[1, 1], cx=K[0, 2], cy=K[1, 2], camera_model="OPENCV")
    disk.write_transforms(root, {**document, **keys})
    return root


LENSES = {
    "barrel": (-0.3, 0.08, 0.0, 0.0, 0.0),
    "pincushion": (0.25, 0.1, 0.0, 0.0, -0.05),
    "tangential": (-0.1, 0.0, 0.01, -0.02, 0.0),
}


@pytest.mark.parametrize("lens", LENSES)
def test_undistorted_pixels_show_the_rays_of_the_camera(tmp_path, lens):
    frame = open_dataset(write(tmp_path, LENSES[lens]))[0]
    assert frame.image.shape == (48, 64, 3)
    expected = colour_of(pixel_rays(frame.camera.K)).astype(float)
    error = frame.image.astype(float) - expected
    assert np.abs(error[2:-2, 2:-2]).max() <= 2  # a pixel is 3.7 grey levels wide
    assert np.abs(error[2:-2, 2:-2].mean(axis=(0, 1))).max() < 0.2  # half a pixel of shift would be 1.8
    assert (np.abs(error) <= 5).all() and (frame.image[:, :, 2] == 77).all()  # no black border
    unmoved = photograph(LENSES[lens]).astype(float) - colour_of(pixel_rays(K))
    assert np.abs(unmoved).max() > 5  # the distortion is not negligible


def test_labels_are_undistorted_like_the_image(tmp_path):
    root = write(tmp_path, LENSES["barrel"])
    right = (photograph(LENSES["barrel"])[:, :, 0] > 150).astype(np.uint8)
    (root / "labels").mkdir()
    Image.fromarray(right).save(root / "labels" / "a.png")
    (root / "classes.txt").write_text("1 right\n")
    frame = open_dataset(root)[0]
    expected = colour_of(pixel_rays(frame.camera.K))[:, :, 0] > 150
    assert (frame.labels == expected).mean() > 0.98
    shrunk = open_dataset(root, max_image_size=32)[0]
    np.testing.assert_allclose(shrunk.camera.K[:2], frame.camera.K[:2] / 2)
    assert shrunk.labels.shape == (24, 32)


@pytest.mark.parametrize(
    "camera, coefficients",
    [
        ("SIMPLE_RADIAL 64 48 100 33 22 -0.2", (-0.2, 0, 0, 0, 0)),
        ("RADIAL 64 48 100 33 22 -0.2 0.05", (-0.2, 0.05, 0, 0, 0)),
        ("OPENCV 64 48 100 95 33 22 -0.2 0.05 0.01 -0.02", (-0.2, 0.05, 0.01, -0.02, 0)),
    ],
)
def test_colmap_models_match_the_same_nerfstudio_camera(tmp_path, camera, coefficients):
    colmap = open_dataset(disk.write_colmap_text(tmp_path / "colmap", camera))
    root = disk.write_nerfstudio(tmp_path / "nerfstudio")
    keys = dict(zip(("k1", "k2", "p1", "p2", "k3"), coefficients, strict=False))
    fl_y = 95.0 if camera.startswith("OPENCV") else 100.0
    disk.write_transforms(
        root, {**disk.transforms(), **keys, "camera_model": "OPENCV", "fl_y": fl_y, "cx": 33, "cy": 22}
    )
    nerfstudio = open_dataset(root)
    np.testing.assert_allclose(colmap.cameras[0].K, nerfstudio.cameras[0].K)
    np.testing.assert_array_equal(colmap[0].image, nerfstudio[0].image)


def test_pinhole_images_are_not_changed(tmp_path):
    frame = open_dataset(disk.write_colmap_text(tmp_path, "SIMPLE_PINHOLE 64 48 100 32 24"))[0]
    np.testing.assert_allclose(frame.camera.K, [[100, 0, 32], [0, 100, 24], [0, 0, 1]])
    np.testing.assert_array_equal(frame.image, np.array(Image.open(tmp_path / "images" / "a.png")))


def test_distortion_that_folds_the_image_is_refused(tmp_path):
    root = disk.write_nerfstudio(tmp_path)
    disk.write_transforms(root, {**disk.transforms(), "camera_model": "OPENCV", "k1": -9.0})
    with pytest.raises(UserError, match=r"a\.png: distortion .* cannot be undone"):
        open_dataset(root)


FISHEYE_LENSES = {"bent": (-0.05, 0.02, 0.01, -0.004), "ideal": (0.0, 0.0, 0.0, 0.0)}


def fisheye_photograph(coefficients: tuple[float, ...]) -> np.ndarray:
    """The photograph through a fisheye lens: the radius is a polynomial of the angle."""
    target = pixel_rays(K)
    radius = np.linalg.norm(target, axis=-1)
    angle = radius.copy()
    powers = np.array([3, 5, 7, 9])
    for _ in range(100):
        angle = radius - (np.array(coefficients) * angle[..., None] ** powers).sum(-1)
    return colour_of(target * (np.tan(angle) / radius)[..., None])


@pytest.mark.parametrize("lens", FISHEYE_LENSES)
@pytest.mark.parametrize("reader", ["colmap", "nerfstudio", "instant-ngp"])
def test_fisheye_images_are_undistorted(tmp_path, lens, reader):
    coefficients = FISHEYE_LENSES[lens]
    if reader == "colmap":
        values = " ".join(map(str, (60.0, 57.0, 33.0, 22.0, *coefficients)))
        root = disk.write_colmap_text(tmp_path, f"OPENCV_FISHEYE 64 48 {values}")
    else:
        root = disk.write_nerfstudio(tmp_path)
        keys = dict(zip(("k1", "k2", "k3", "k4"), coefficients, strict=True))
        model = {"camera_model": "OPENCV_FISHEYE"} if reader == "nerfstudio" else {"is_fisheye": True}
        document = {**disk.transforms(), **keys, **model, "fl_x": 60.0, "fl_y": 57.0, "cx": 33.0, "cy": 22.0}
        disk.write_transforms(root, document)
    Image.fromarray(fisheye_photograph(coefficients)).save(root / "images" / "a.png")
    frame = open_dataset(root)[0]
    error = frame.image.astype(float) - colour_of(pixel_rays(frame.camera.K))
    assert np.abs(error[2:-2, 2:-2]).max() <= 2
    assert (frame.image[:, :, 2] == 77).all()  # no black border
    unmoved = fisheye_photograph(coefficients).astype(float) - colour_of(pixel_rays(K))
    assert np.abs(unmoved).max() > 5


def test_full_opencv_equals_opencv_if_its_denominator_is_one(tmp_path):
    images = []
    for name, camera in (
        ("opencv", "OPENCV 64 48 100 95 33 22 -0.2 0.05 0.01 -0.02"),
        ("full", "FULL_OPENCV 64 48 100 95 33 22 -0.2 0.05 0.01 -0.02 0 0 0 0"),
        ("other", "FULL_OPENCV 64 48 100 95 33 22 -0.2 0.05 0.01 -0.02 0 0.3 0 0"),
    ):
        images.append(open_dataset(disk.write_colmap_text(tmp_path / name, camera)))
    np.testing.assert_array_equal(images[0][0].image, images[1][0].image)
    assert not np.allclose(images[0].cameras[0].K, images[2].cameras[0].K)
    root = disk.write_nerfstudio(tmp_path / "nerfstudio")
    keys = dict(camera_model="FULL_OPENCV", k1=-0.2, k2=0.05, p1=0.01, p2=-0.02, k4=0.3)
    disk.write_transforms(root, {**disk.transforms(), **keys, "fl_y": 95.0, "cx": 33, "cy": 22})
    np.testing.assert_allclose(open_dataset(root).cameras[0].K, images[2].cameras[0].K)


def test_fisheye_wider_than_a_pinhole_is_refused(tmp_path):
    camera = "OPENCV_FISHEYE 64 48 15 15 32 24 0 0 0 0"
    with pytest.raises(UserError, match="cannot be undone over the whole image"):
        open_dataset(disk.write_colmap_text(tmp_path, camera))
