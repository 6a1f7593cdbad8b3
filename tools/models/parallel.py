"""Runs one training in several processes of one thread.

On a busy CPU this is faster than one process of several threads.
"""

from __future__ import annotations

import torch


def join(model: torch.nn.Module) -> int:
    """Joins the processes of torchrun and returns the rank of this process.

    All processes start from the weights of the first.
    """
    if not torch.distributed.is_torchelastic_launched():
        return 0
    torch.distributed.init_process_group("gloo")
    for value in model.state_dict().values():
        torch.distributed.broadcast(value, 0)
    return torch.distributed.get_rank()


def share_gradients(model: torch.nn.Module, progress: float) -> float:
    """Averages gradients and progress over the processes; returns the mean progress.

    All processes therefore stop at the same step.
    """
    if not torch.distributed.is_torchelastic_launched():
        return progress
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([progress])])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for gradient, mean in zip(gradients, flat[:-1].split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view(gradient.shape))
    return flat[-1].item()
