"""Fly through a map along its keyframes: colour, depth, and the named things highlighted.

python examples/03_render_it.py room.ovs3d "green teddy bear" "blue chair" -o flight.webp
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from ovs3d_ros import Camera, Ovs3d
from ovs3d_ros.visualization import pictures

WIDTH = 320  # pixels of each of the three pictures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("map")
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=Path("flight.webp"))
    options = parser.parse_args()

    room = Ovs3d.load(options.map)
    snapshot = room.snapshot()  # an immutable copy; any thread may query and render it
    answer = room.query(options.prompts, snapshot=snapshot)
    camera: Camera = snapshot.cameras[0].fitted(WIDTH)  # other intrinsics work as well

    flight = []
    for camtoworld in snapshot.camtoworlds:  # other poses work as well: [4, 4], OpenCV axes, metres
        view = room.render(camera, camtoworld, snapshot)
        labels, _ = room.render_labels(answer, camera, camtoworld, snapshot)
        rgb = pictures.to_uint8(view.rgb.cpu().numpy())
        depth = pictures.color_depth(view.depth.cpu().numpy(), near=0.5, far=5.0)
        flight.append(Image.fromarray(np.hstack([rgb, depth, pictures.overlay(rgb, labels)])))

    flight[0].save(options.output, save_all=True, append_images=flight[1:], duration=200, loop=0)
    print(f"Saved {options.output}: {len(flight)} frames")


if __name__ == "__main__":
    main()
