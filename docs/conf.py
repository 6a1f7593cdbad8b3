"""Sphinx configuration; `make docs` builds with it, and so does rosdoc2."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

project = "ovs3d_ros"
author = "The ovs3d_ros maintainers"
release = re.search(r'__version__ = "([^"]+)"', (ROOT / project / "__init__.py").read_text("utf-8"))[1]

extensions = ["myst_parser", "parameter_tables"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
html_show_copyright = False
