"""Turns a rendered walk into the scene that the package ships.

python tools/world/generate.py --split val --kind walk --seeds 17 --views 60 --out walk
python tools/world/make_demo_scene.py walk/scene_00017 ovs3d_ros/demo_scene
python tools/world/make_bag.py ovs3d_ros/demo_scene
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import vocabulary

OUTSIDE = ("bicycle", "dog")  # absent from the whole procedural world
NUM_NOUNS, NUM_PAIRS = 6, 6
ORIGIN = """Demo scene of ovs3d_ros
=======================
A procedural room rendered for this project with Blender's Cycles; no third-party meshes, textures or photographs.
Licence: Apache-2.0, like the project.

60 frames, 320x240, on a path a robot would drive. Made by
  python tools/world/generate.py --split val --kind walk --seeds 17 --views 60 --out walk
  python tools/world/make_demo_scene.py walk/scene_00017 ovs3d_ros/demo_scene
  python tools/world/make_bag.py ovs3d_ros/demo_scene

transforms.json  poses (OpenGL camera-to-world, metres) and intrinsics, as nerfstudio has them
images/ depth/   RGB (JPEG) and z-depth (16-bit PNG, millimetres, 0 = none)
labels/          class index per pixel, 0 = unlabelled; classes.txt names them. Measuring only: mapping never reads them
absent.txt       what the demo asks for although it is not in the room: nouns of the rendered world that this room
                 lacks, things of this room in a colour that it lacks, and things that the world lacks, drawn by seed 0
objects.json     noun, colour, material, centre and size of each object
bag/             the same frames as a rosbag2 (mcap): image/compressed, depth/compressedDepth, camera_info, pose
"""  # noqa: E501 - the text of a file


def absent_names(objects: list[dict], seed: int = 0) -> list[str]:
    """Names of things that are absent from a room: other nouns, other colours, and things beyond the world.

    Args:
        objects: objects of the room with "noun" and "colour", as in objects.json.
        seed: seed of the draw.
    """
    rng = random.Random(seed)
    here = {(o["noun"], o["colour"]) for o in objects}
    nouns = {noun for noun, _ in here}
    missing = rng.sample(sorted(set(vocabulary.NOUNS) - nouns), NUM_NOUNS)
    pairs = []
    for noun in rng.sample(sorted(nouns), len(nouns)):
        colours = [
            c for c in vocabulary.NOUNS[noun].colours if c in vocabulary.VIVID and (noun, c) not in here
        ]
        if colours:
            pairs.append(f"{rng.choice(colours)} {noun}")
    return [*missing, *pairs[:NUM_PAIRS], *OUTSIDE]


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("walk", type=Path, help="rendered scene")
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    for name in ("images", "depth", "labels"):
        shutil.copytree(args.walk / name, args.out / name)
    for name in ("classes.txt", "objects.json"):
        shutil.copy(args.walk / name, args.out / name)
    transforms = json.loads((args.walk / "transforms.json").read_text(encoding="utf-8"))
    for frame in transforms["frames"]:
        frame.pop("instance_file_path", None)
    (args.out / "transforms.json").write_text(json.dumps(transforms, indent=1) + "\n", encoding="utf-8")
    objects = json.loads((args.walk / "objects.json").read_text(encoding="utf-8"))
    (args.out / "absent.txt").write_text(
        "\n".join(absent_names(list(objects.values()))) + "\n", encoding="utf-8"
    )
    (args.out / "ORIGIN.txt").write_text(ORIGIN, encoding="utf-8")


if __name__ == "__main__":
    main()
