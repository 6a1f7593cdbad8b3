"""Averages the weights of trained folders.

Usage: `python tools/models/average.py --clip DIR DIR [DIR ...] --out DIR`.

The mean of weights of successive runs is better than each run (Wortsman et al., "Model soups", 2022).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--clip", type=Path, nargs="+", required=True, help="model folders of one configuration"
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    states = [load_file(folder / "model.safetensors") for folder in args.clip]
    average = {
        name: sum(state[name].float() for state in states).div(len(states)).to(value.dtype)
        for name, value in states[0].items()
    }
    shutil.copytree(args.clip[0], args.out, dirs_exist_ok=True)
    save_file(average, args.out / "model.safetensors")


if __name__ == "__main__":
    main()
