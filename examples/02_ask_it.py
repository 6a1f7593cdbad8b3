"""Ask a map where things are, and let it say that something is not there.

python examples/02_ask_it.py room.ovs3d "green teddy bear" "pink phone" "bicycle"
"""

import argparse

from ovs3d_ros import Ovs3d


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("map")
    parser.add_argument("prompts", nargs="+")
    options = parser.parse_args()

    room = Ovs3d.load(options.map)
    answer = room.query(options.prompts)
    for i, prompt in enumerate(options.prompts):
        words = {"yes": "here", "unsure": "perhaps here", "no": "not here"}[answer.verdicts[i]]
        print(f"{prompt}: {words} (probability {answer.presence[i]:.2f})")
        for item in answer.objects:
            if item.prompt == prompt:
                x, y, z = item.center  # metres, in the world frame of the poses
                print(f"    at ({x:.2f}, {y:.2f}, {z:.2f}), longest side {max(item.size):.2f} m")

    if answer.observed < 0.95:
        print(
            f"The cameras saw {answer.observed:.0%} of the horizon: a missing thing may be where none has "
            "looked."
        )


if __name__ == "__main__":
    main()
