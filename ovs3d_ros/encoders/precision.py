"""Encoders in bfloat16, where the hardware has instructions for it: about twice as fast as float32 on a CPU."""

from __future__ import annotations

import torch

_NATIVE = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # of x86-64 and arm64


def number_format(precision: str, device: str) -> str:
    """ "float32" or "bfloat16": what a parameter means on this machine.

    Args:
        precision: one of them, or "auto": bfloat16 on a CPU that multiplies it natively, else float32.
        device: torch device name.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if torch.device(device).type == "cpu" and _native() else "float32"


def image_precision(precision: str, device: str) -> torch.autocast:
    """What an image tower is to run in, see `number_format`; weights and results stay float32."""
    reduced = number_format(precision, device) == "bfloat16"
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=reduced)


def _native() -> bool:
    """Whether this CPU has bfloat16 instructions, as far as the installed torch can tell: without, it is emulated."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in _NATIVE)
