"""Puts a trained model folder into the package: `python tools/models/export.py --clip DIR --dense-sizes 960`.

`calibration.json` keeps what other tools wrote into it; only the sections `name` and `encoder` are replaced.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

MODELS = Path(__file__).resolve().parents[2] / "ovs3d_ros" / "models"


def copy_files(source: Path, target: Path, names: tuple[str, ...]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / name)
        (target / name).chmod(0o644)


def calibrate(target: Path, name: str, mode: str, dense_sizes: list[int]) -> None:
    """Writes which model this is and how its images are best encoded."""
    path = target / "calibration.json"
    calibration = json.loads(path.read_text()) if path.is_file() else {}
    calibration.update(name=name, encoder={"mode": mode, "dense_sizes": dense_sizes})
    path.write_text(json.dumps(calibration, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, help="folder written by train_clip.py")
    parser.add_argument(
        "--name", default="ovs3d-tiny-clip-v1", help="recorded in maps; change it with the weights"
    )
    parser.add_argument("--mode", choices=("dense", "pyramid"), default="dense")
    parser.add_argument(
        "--dense-sizes", type=int, nargs="+", default=[960], help="longer image sides in dense mode, px"
    )
    parser.add_argument("--dino", type=Path, help="folder written by train_dino.py")
    args = parser.parse_args()
    if args.clip is not None:
        target = MODELS / "tiny_clip"
        copy_files(args.clip, target, ("model.safetensors", "open_clip_config.json", "bpe_merges.txt.gz"))
        calibrate(target, args.name, args.mode, args.dense_sizes)
    if args.dino is not None:
        copy_files(args.dino, MODELS / "tiny_dino", ("model.safetensors", "config.json"))


if __name__ == "__main__":
    main()
