"""Reads colour, depth, labels and masks from disk, and resizes them with pixel centres at +0.5.

Pillow decodes: it reports truncated files, keeps palette indices and ignores the EXIF orientation, as COLMAP
and nerfstudio do when they compute poses. OpenCV resizes.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ovs3d_ros.io.git_lfs import check_no_lfs_pointer
from ovs3d_ros.types import Camera, UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})
_VIDEO = (
    "a video is no image; extract frames with ffmpeg, and compute their poses (e.g. ns-process-data video)"
)
OTHER_FORMATS = dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".h264", ".264", ".hevc"), _VIDEO)
OTHER_FORMATS |= dict.fromkeys(
    (".heic", ".heif"), "convert HEIC to JPEG, e.g. `mogrify -format jpg *.heic`, and name those files"
)
OTHER_FORMATS |= {
    ".exr": "EXR is not read; convert photographs to 8-bit PNG, and depth to float32 TIFF or .npy",
    ".dng": "raw photographs are not read; develop them to JPEG or PNG",
}
DEPTH_REMEDY = "depth must be a single-channel 16-bit PNG, a float32 TIFF or a .npy array"

INTEGER_DEPTH_UNIT_M = 0.001  # integers are millimetres unless the dataset says otherwise, as in nerfstudio
DYNAMIC_MASK = "dynamic_mask_"  # prefix of the masks of instant-ngp
_LOSSY_BLACK = 127  # in JPEG, black is not quite black
_WHOLE = 0.999  # share of a pixel, but for rounding
_DEPTH_TYPES = ("u2", "u4", "i4", "f2", "f4", "f8")  # NumPy types, of either byte order
_MAX_GUESSED_DEPTH = 100.0  # median metres; float depth beyond it is in millimetres rather than in metres


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the file's header.

    Raises:
        UserError: the file is missing or is not an image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error, "not a readable image") from None


def read_rgb(path: Path) -> np.ndarray:
    """Reads an image as [H, W, 3] uint8 RGB; blends transparent pixels with white, as NeRF's Blender.

    Raises:
        UserError: the file is missing or truncated, or has no colour or grey values of 8 or 16 bits.
    """
    image = _decode(path)
    mode = image.mode
    if mode in ("F", "I"):
        raise UserError(f"{path}: {mode}-mode pixels are not a photograph; give an 8-bit RGB image")
    if mode.startswith("I;16"):
        grey = (np.array(image).astype(np.uint32) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = np.array(image.convert("RGBA"))
        alpha = rgba[:, :, 3:].astype(np.float32) / 255.0
        return np.rint(rgba[:, :, :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
    return np.array(image.convert("RGB"))


def read_depth(path: Path, unit_m: float | None) -> np.ndarray:
    """Reads z-depth as [H, W] float32 metres, 0 = none.

    NaN, infinite, negative and saturated values (65535 of 16 bits, as in 7-Scenes) become 0.

    Args:
        path: 16-bit PNG, float32 TIFF, or `.npy` (see `_DEPTH_TYPES`).
        unit_m: metres per stored unit. None: integers are millimetres, floats are metres (REP 118).

    Raises:
        UserError: the file is missing or truncated, the depth has 8 bits or several channels, or float depth
            without a unit cannot be in metres.
    """
    raw = load_npy(path) if path.suffix.lower() == ".npy" else np.array(_decode(path))
    raw = raw[:, :, 0] if raw.ndim == 3 and raw.shape[2] == 1 else raw
    if raw.ndim != 2:
        raise UserError(f"{path}: depth has shape {raw.shape}; {DEPTH_REMEDY}")
    if raw.dtype.str[1:] not in _DEPTH_TYPES:
        raise UserError(f"{path}: depth has dtype {raw.dtype}; {DEPTH_REMEDY}")
    guessed = INTEGER_DEPTH_UNIT_M if raw.dtype.kind in "iu" else 1.0
    depth = (raw.astype(np.float64) * (guessed if unit_m is None else unit_m)).astype(np.float32)
    depth[~(np.isfinite(depth) & (depth > 0))] = 0.0
    if raw.dtype.str[1:] == "u2":
        depth[raw == np.iinfo(np.uint16).max] = 0.0
    median = np.median(depth[depth > 0]) if unit_m is None and guessed == 1.0 and depth.any() else 0.0
    if median > _MAX_GUESSED_DEPTH:
        raise UserError(
            f"{path}: float depth is taken as metres, but its median is {median:.4g}; give the unit, e.g. "
            '"depth_unit_m": 0.001 in transforms.json for millimetres'
        )
    return depth


def read_labels(path: Path, classes: list[str]) -> np.ndarray:
    """Reads an index PNG (grey or palette) as [H, W] uint8 or uint16 class indices, 0 = unlabelled.

    Args:
        path: the PNG.
        classes: name per index; an index with an empty name must not occur, except 0.

    Raises:
        UserError: the file is missing, truncated or a colour image, or an index is not in `classes`.
    """
    labels = np.array(_decode(path))
    if labels.ndim != 2 or labels.dtype not in (np.bool_, np.uint8, np.uint16, np.int32):
        raise UserError(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}; store class indices, one channel"
        )
    for index in np.unique(labels).tolist():
        if index and not (0 <= index < len(classes) and classes[index]):
            raise UserError(
                f"{path}: label {index} has no line in classes.txt; add 'index name' or fix the image"
            )
    return labels.astype(label_dtype(classes))


def label_dtype(classes: list[str]) -> type[np.unsignedinteger]:
    """uint8 if the class indices fit, else uint16."""
    return np.uint8 if len(classes) <= 256 else np.uint16


def read_mask(path: Path) -> np.ndarray:
    """Reads a mask as [H, W] bool; only grey value 255 counts (as in the code of 3D-OVS).

    Raises:
        UserError: the file is missing or truncated.
    """
    return np.array(_decode(path).convert("L")) == 255


def read_scene_mask(path: Path) -> np.ndarray:
    """Reads a mask as [H, W] bool, true where the photograph shows the scene.

    Black pixels do not, as in COLMAP and nerfstudio; in files named `DYNAMIC_MASK`..., all others do not.

    Raises:
        UserError: the file is missing or truncated.
    """
    black = _LOSSY_BLACK if path.suffix.lower() in (".jpg", ".jpeg") else 0
    bright = np.array(_decode(path).convert("L")) > black
    return ~bright if path.name.startswith(DYNAMIC_MASK) else bright


def resize_nearest(array: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resizes [H, W] to [height, width] by the pixel that contains each new pixel's centre."""
    rows = ((np.arange(height) + 0.5) * array.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * array.shape[1] / width).astype(np.int64)
    return np.ascontiguousarray(array[rows[:, None], columns[None, :]])


def resize_mask(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resizes a mask [H, W] bool to [height, width]; a pixel that mixes false ones is false."""
    if mask.shape == (height, width):
        return mask
    return cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > _WHOLE


def resize_rgb(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Shrinks [H, W, 3] uint8 to [height, width, 3] by area averaging."""
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two (width, height) are the same image at two resolutions, up to rounding by one pixel."""
    (width, height), (other_width, other_height) = sorted((size, other))
    return abs(width * other_height - height * other_width) <= max(other_width, other_height)


def fit_to_image(camera: Camera, path: Path) -> Camera:
    """The declared camera at the resolution of the image file it belongs to.

    Raises:
        UserError: the file's aspect ratio contradicts the declared width and height.
    """
    declared, actual = (camera.width, camera.height), image_size(path)
    if declared == actual:
        return camera
    if not same_aspect(declared, actual):
        turned = " (turned by its EXIF orientation?)" if same_aspect(declared, actual[::-1]) else ""
        raise UserError(
            f"{path}: the image is {actual[0]}x{actual[1]} but its camera says "
            f"{declared[0]}x{declared[1]}{turned}; "
            "give the image that was calibrated, or fix width and height"
        )
    return camera.scaled(*actual)


def image_folder(root: Path, original: bool = False) -> Path | None:
    """The folder `images`, or else the least shrunk of `images_2`, `images_4`, ...; None if there is none.

    Args:
        root: where to look.
        original: prefer the folder `input`, where the original 3DGS keeps the distorted photographs.
    """
    if original and (root / "input").is_dir():
        return root / "input"
    if (root / "images").is_dir():
        return root / "images"
    shrunk = [folder for folder in root.glob("images_*") if folder.is_dir() and folder.name[7:].isdigit()]
    return min(shrunk, key=lambda folder: int(folder.name[7:]), default=None)


def load_npy(path: Path) -> np.ndarray:
    """Loads a `.npy` array without unpickling.

    Raises:
        UserError: the file is missing, truncated or pickled.
    """
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, EOFError, OSError) as error:
        check_no_lfs_pointer(path)
        raise UserError(f"{path}: not a readable .npy array ({_first_line(error)})") from None


def _decode(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error, "the image is truncated or unreadable") from None


def _unreadable(path: Path, error: Exception, what: str) -> UserError:
    """The error for a file that Pillow refuses; it says what to do about other formats and huge images."""
    check_no_lfs_pointer(path)
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow refuses twice the size that it warns about
        return UserError(
            f"{path}: larger than the {limit / 1e6:.0f} megapixels that are read, and "
            "the map needs far less; shrink it, e.g. by `mogrify -resize 4000x4000`; its pose stays the same"
        )
    remedy = OTHER_FORMATS.get(path.suffix.lower(), "")
    return UserError(f"{path}: {what} ({_first_line(error)}){remedy and '; ' + remedy}")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
