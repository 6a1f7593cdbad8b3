"""Scales the page of a demo to a picture of the documentation.

ovs3d demo --photos && python tools/picture_of_demo.py out/demo/demo.png docs/demo_photos.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

WIDTH, QUALITY = 1400, 82  # px, and of the JPEG


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="demo.png of a run")
    parser.add_argument("picture", type=Path, help="JPEG to write")
    options = parser.parse_args()
    with Image.open(options.page) as page:
        size = WIDTH, round(page.height * WIDTH / page.width)
        page.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(
            options.picture, quality=QUALITY, optimize=True, progressive=True
        )


if __name__ == "__main__":
    main()
