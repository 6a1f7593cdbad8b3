"""Makes the animation at the top of the README: a camera flies through a map, which answers three queries.

    ovs3d map ovs3d_ros/demo_scene -o demo.ovs3d
    python tools/animate_query.py demo.ovs3d docs/images/query.webp

Only the search bar is drawn by hand. The map provides the rendered images, and the mask, box, verdict and
probability of each answer.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ovs3d_ros import Camera, Ovs3d
from ovs3d_ros.commands.camera_paths import orbit_path
from ovs3d_ros.geometry import project, quat_to_matrix
from ovs3d_ros.types import MapSnapshot, QueryResult, SemanticObject
from ovs3d_ros.visualization import pictures

PROMPTS = ("green teddy bear", "bicycle", "red clock")
WIDTH, FPS = 640, 15
TYPING, ANSWER, PAUSE = 0.55, 1.25, 0.15  # seconds to type a prompt, to show its answer, and to rest
FADE = 0.25  # seconds in which an answer fades in or out
SMOOTH = 2  # overlays are drawn at this multiple of the size, then shrunk
INK, PAPER, FAINT = (24, 26, 31), (250, 250, 248), (138, 142, 150)
UNMAPPED = np.array([52, 54, 60])  # colour where the map is transparent
VERDICTS = {
    "yes": ("here", (46, 160, 103)),
    "unsure": ("perhaps", (208, 150, 48)),
    "no": ("not here", (206, 72, 60)),
}
COLORS = ((255, 202, 66), (255, 140, 90), (120, 200, 255))  # of the answers, in order
# Corner indices of the edges of a box.
EDGES = [(i, i ^ bit) for i in range(8) for bit in (1, 2, 4) if i < i ^ bit]


@dataclass(frozen=True, slots=True)
class Moment:
    """The content of a frame of the animation.

    Attributes:
        prompt: index of the prompt.
        letters: number of letters of the prompt that are typed.
        light: brightness of the answer, 0..1.
    """

    prompt: int
    letters: int
    light: float


def plan(prompts: tuple[str, ...]) -> list[Moment]:
    """The moments of the whole animation, in order.

    They start in the middle of the first answer, as some viewers show only the first frame.
    """
    moments = []
    for index, prompt in enumerate(prompts):
        for i in range(round((TYPING + ANSWER + PAUSE) * FPS)):
            seconds = i / FPS
            letters = min(len(prompt), round(len(prompt) * seconds / TYPING))
            since, until = seconds - TYPING, TYPING + ANSWER - seconds
            light = float(np.clip(min(since, until) / FADE, 0, 1))
            moments.append(Moment(index, letters, light * light * (3 - 2 * light)))
    start = round((TYPING + ANSWER / 2) * FPS)
    return moments[start:] + moments[:start]


def light_up(image: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], light: float) -> np.ndarray:
    """The image with the masked pixels brightened, a glow around them, and the rest dimmed.

    Args:
        image: [H, W, 3] uint8.
        mask: [H, W] bool.
        color: RGB of the answer.
        light: 0..1, 0 leaves the image as it is.
    """
    soft = Image.fromarray(mask.astype(np.uint8) * 255)
    inside = np.asarray(soft.filter(ImageFilter.GaussianBlur(1.2)), np.float32)[..., None] / 255
    glow = np.asarray(soft.filter(ImageFilter.GaussianBlur(12)), np.float32)[..., None] / 255
    grey = image.mean(axis=2, keepdims=True)
    dimmed = 0.55 * (0.4 * image + 0.6 * grey) + np.maximum(glow - inside, 0) * 0.9 * np.array(color)
    bright = 1.1 * image + 0.12 * np.array(color)
    lit = dimmed * (1 - inside) + bright * inside
    return np.clip(image + light * (lit - image), 0, 255).astype(np.uint8)


def box_corners(item: SemanticObject, camera: Camera, camtoworld: np.ndarray) -> np.ndarray | None:
    """Pixels [8, 2] of the corners of an object's box, or None when one of them is behind the camera."""
    signs = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)]) * 2 - 1
    corners = item.center + signs * item.size / 2 @ quat_to_matrix(item.quat).T
    pixels, depth = project(corners, camera, camtoworld)
    return pixels if depth.min() > 0.05 else None


def draw_box(
    layer: Image.Image, item: SemanticObject, corners: np.ndarray, color: tuple[int, int, int], light: float
) -> None:
    """Draws a box and a plate with the name of the object above it, on a transparent layer."""
    draw = ImageDraw.Draw(layer)
    alpha = round(255 * light)
    for a, b in EDGES:
        draw.line([tuple(corners[a] * SMOOTH), tuple(corners[b] * SMOOTH)], (*color, alpha), 2 * SMOOTH)
    font = ImageFont.load_default(15 * SMOOTH)
    text = item.prompt
    wide, high = font.getlength(text) + 16 * SMOOTH, 24 * SMOOTH
    x = np.clip(corners[:, 0].mean() * SMOOTH - wide / 2, 8, layer.width - wide - 8)
    y = max(corners[:, 1].min() * SMOOTH - high - 8 * SMOOTH, 8)
    draw.rounded_rectangle((x, y, x + wide, y + high), 6 * SMOOTH, (*color, alpha))
    draw.text((x + wide / 2, y + high / 2), text, (*INK, alpha), font, anchor="mm")


def draw_search_bar(layer: Image.Image, prompt: str, letters: int) -> None:
    """Draws a search bar in which the first letters of a prompt are typed."""
    draw = ImageDraw.Draw(layer)
    left, top, right, bottom = search_bar_box(layer)
    middle, s = (top + bottom) / 2, SMOOTH
    draw.rounded_rectangle((left, top, right, bottom), (bottom - top) / 2, (*PAPER, 240))
    x, r = left + 26 * s, 7 * s
    draw.ellipse(
        (x - r, middle - r - 2 * s, x + r, middle + r - 2 * s), outline=(*FAINT, 255), width=2 * s + 1
    )
    draw.line((x + 5 * s, middle + 3 * s, x + 11 * s, middle + 9 * s), (*FAINT, 255), 3 * s)
    font, typed = ImageFont.load_default(19 * s), prompt[:letters]
    draw.text((x + 24 * s, middle), typed, (*INK, 255), font, anchor="lm")
    if letters < len(prompt):
        caret = x + 24 * s + font.getlength(typed) + 3 * s
        draw.line((caret, middle - 11 * s, caret, middle + 11 * s), (*INK, 255), 2 * s)


def draw_verdict(layer: Image.Image, verdict: str, presence: float, light: float) -> None:
    """Draws on a transparent layer, at the right end of the search bar, whether the thing is here."""
    draw = ImageDraw.Draw(layer)
    _, top, right, bottom = search_bar_box(layer)
    words, color = VERDICTS[verdict]
    words = f"{words}  {presence:.2f}"
    font, alpha, s = ImageFont.load_default(16 * SMOOTH), round(255 * light), SMOOTH
    wide = font.getlength(words) + 24 * s
    plate = (right - wide - 8 * s, top + 8 * s, right - 8 * s, bottom - 8 * s)
    draw.rounded_rectangle(plate, 14 * s, (*color, alpha))
    center = ((plate[0] + plate[2]) / 2, (top + bottom) / 2)
    draw.text(center, words, (255, 255, 255, alpha), font, anchor="mm")


def search_bar_box(layer: Image.Image) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the search bar."""
    return 0.16 * layer.width, layer.height - 62 * SMOOTH, 0.84 * layer.width, layer.height - 18 * SMOOTH


class Animation:
    """Renders frames of a map and the answers to the prompts over them."""

    def __init__(self, room: Ovs3d, prompts: tuple[str, ...]) -> None:
        self.room, self.prompts = room, prompts
        self.snapshot: MapSnapshot = room.snapshot()
        self.answers: list[QueryResult] = [room.query([p], snapshot=self.snapshot) for p in prompts]
        camera = self.snapshot.cameras[0]
        self.camera = camera.scaled(WIDTH, round(camera.height * WIDTH / camera.width))

    def frame(self, moment: Moment, camtoworld: np.ndarray) -> Image.Image:
        """One frame of the animation."""
        answer, color = self.answers[moment.prompt], COLORS[moment.prompt % len(COLORS)]
        view = self.room.render(self.camera, camtoworld, self.snapshot)
        alpha = view.alpha.cpu().numpy()[..., None]
        rgb = pictures.to_uint8(view.rgb.cpu().numpy() + (1 - alpha) * UNMAPPED / 255)
        if moment.light > 0:
            labels, _ = self.room.render_labels(answer, self.camera, camtoworld, self.snapshot)
            rgb = light_up(rgb, labels > 0, color, moment.light if answer.objects else 0.6 * moment.light)
        height = rgb.shape[0]
        bar, chip = (Image.new("RGBA", (WIDTH * SMOOTH, height * SMOOTH)) for _ in range(2))
        draw_search_bar(bar, self.prompts[moment.prompt], moment.letters)
        if moment.light > 0:
            draw_verdict(chip, answer.verdicts[0], float(answer.presence[0]), moment.light)
            for item in answer.objects[:1]:
                corners = box_corners(item, self.camera, camtoworld)
                if corners is not None:
                    draw_box(chip, item, corners, color, moment.light)
        layer = Image.alpha_composite(bar, chip).resize((WIDTH, height), Image.Resampling.LANCZOS)
        return Image.alpha_composite(Image.fromarray(rgb).convert("RGBA"), layer).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("map", type=Path)
    parser.add_argument("output", type=Path, help=".webp file")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS)
    parser.add_argument("--quality", type=int, default=80, help="of WebP, 0 to 100")
    parser.add_argument("--every", type=int, default=1, help="render every n-th frame only, for a quick look")
    parser.add_argument("--frames", type=Path, help="folder for the frames as PNG files")
    options = parser.parse_args()

    room = Ovs3d.load(options.map)
    animation = Animation(room, tuple(options.prompts))
    moments = plan(animation.prompts)
    path = orbit_path(animation.snapshot.camtoworlds, 2.0, len(moments))
    chosen = range(0, len(moments), options.every)
    frames = [animation.frame(moments[i], path[i]) for i in chosen]
    if options.frames:
        options.frames.mkdir(parents=True, exist_ok=True)
        for i, frame in zip(chosen, frames, strict=True):
            frame.save(options.frames / f"{i:03d}.png")
    frames[0].save(
        options.output,
        save_all=True,
        append_images=frames[1:],
        loop=0,
        method=6,
        quality=options.quality,
        duration=round(1000 * options.every / FPS),
    )
    print(f"{options.output}: {len(frames)} frames, {options.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
