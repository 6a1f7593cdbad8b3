"""Refine the labels of a map for your own names.

A check on images decides whether the refined labels replace the old ones.

    python examples/06_refine_for_a_vocabulary.py room.ovs3d ~/data/kitchen "red mug" "blue kettle"

The check needs a few images of the place, with poses in the frame of the map.
"""

import argparse

from ovs3d_ros import Ovs3d
from ovs3d_ros.datasets import open_dataset

CHECK_VIEWS = 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("map")
    parser.add_argument("data")
    parser.add_argument("names", nargs="+")
    options = parser.parse_args()

    room = Ovs3d.load(options.map)
    images = open_dataset(options.data)
    views = [images[i] for i in range(0, len(images), max(1, len(images) // CHECK_VIEWS))]

    for progress in room.refine(options.names, views):
        print(f"\r{progress.stage} {progress.step}/{progress.total}", end="", flush=True)
    print(f"\n{progress.message}")

    if progress.kept:
        room.save(options.map)  # queries for these names now use the refined labels


if __name__ == "__main__":
    main()
