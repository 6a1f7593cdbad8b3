"""Encoders in bfloat16, where the hardware has instructions for it: about twice as fast as float32 on a CPU."""

from __future__ import annotations

import torch

_NATIVE = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # of x86-64 and arm64


def image_precision(precision: str, device: str) -> torch.autocast:
    """What an image tower is to run in; weights and results stay float32.

    Args:
        precision: "float32", "bfloat16", or "auto": bfloat16 on a CPU that multiplies it natively, else float32.
        device: torch device name.
    """
    kind = torch.device(device).type
    reduced = precision == "bfloat16" or (precision == "auto" and kind == "cpu" and _native())
    return torch.autocast(kind, torch.bfloat16, enabled=reduced)


def _native() -> bool:
    """Whether this CPU has bfloat16 instructions, as far as the installed torch can tell: without, it is emulated."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in _NATIVE)
