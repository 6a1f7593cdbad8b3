"""Map a folder of posed images, frame by frame as a robot would see them, and save the map.

    python examples/01_map_a_folder.py                        the small room that ships with the package
    python examples/01_map_a_folder.py ~/data/kitchen --clip ViT-B-16 -o kitchen.ovs3d

The folder has the layout of nerfstudio, COLMAP or LLFF, or is a rosbag2. Depth images are optional.
"""

import argparse
from pathlib import Path

from ovs3d_ros import Config, Ovs3d
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.demo.scene import SHIPPED


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, nargs="?", default=SHIPPED)
    parser.add_argument(
        "--clip", default="bundled", help="open_clip model; `bundled` knows the shipped room only"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("room.ovs3d"))
    options = parser.parse_args()

    config = Config.from_settings({"clip.model": options.clip})
    room = Ovs3d(config)
    for frame in open_dataset(options.data, config=config):
        if room.add_frame(frame):  # it became a keyframe
            room.optimize(config.train.steps_per_keyframe)
            print(f"{frame.name}: {room.stats['num_gaussians']} Gaussians, PSNR {room.stats['psnr']:.1f} dB")

    for _ in room.relift():  # optimisation has moved the Gaussians: lift their features again
        pass
    room.save(options.output)
    print(f"Saved {options.output}. Ask it: python examples/02_ask_it.py {options.output} 'green teddy bear'")


if __name__ == "__main__":
    main()
