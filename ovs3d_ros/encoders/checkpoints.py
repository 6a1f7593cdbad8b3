"""Weight files of users: a checkpoint may be a pickle, which runs code when it is loaded; ours never do."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from ovs3d_ros.types import UserError

_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".tar")
_SAFE = ".safetensors"


def check_weight_files(parameter: str, path: str) -> None:
    """Refuses checkpoints that hold anything but tensors, before open_clip or timm open them.

    Whether these libraries load only weights depends on their version.

    Args:
        parameter: name of the parameter, for the error message.
        path: a checkpoint, or a folder with one. A name that is no file, like a tag, passes.

    Raises:
        UserError: a checkpoint holds other Python objects, or cannot be read.
    """
    named = Path(path).expanduser()
    if named.is_dir():
        files = [file for file in sorted(named.iterdir()) if file.suffix in _PICKLED]
    else:
        files = [named] if named.is_file() and named.suffix not in (_SAFE, ".npz") else []
    for file in files:
        _check_pickle(parameter, file)


def _check_pickle(parameter: str, file: Path) -> None:
    try:
        torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0][:160] or type(error).__name__
        raise UserError(
            f"{parameter}: {file} holds more than weights, or is damaged ({reason}). It is not opened, since "
            "it could run code; convert it to .safetensors where you trust it"
        ) from None
