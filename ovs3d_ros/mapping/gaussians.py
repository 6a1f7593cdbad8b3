"""The Gaussians: parameters, optimizer state and statistics, kept in step when rows are added or removed.

Parameters have the unconstrained form that is optimised: log scales, opacity logits, quaternions of any
length. The standard 3DGS PLY holds the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.config import TrainConfig
from ovs3d_ros.geometry import SH_C0, matrix_to_quat
from ovs3d_ros.mapping.adam import RowAdam
from ovs3d_ros.rasterize.spherical_harmonics import sh_basis

_SQUARES = "squares of "  # before the name of a parameter: Adam's mean squared gradients
Rows = Callable[[str, torch.Tensor], torch.Tensor]  # new rows from the old ones, by name
PARAMETERS = ("means", "log_scales", "quats", "opacity_logits", "sh_dc", "sh_rest")


def num_sh_rest(degree: int) -> int:
    """Number of spherical-harmonic coefficients above degree 0."""
    return (degree + 1) ** 2 - 1


class Gaussians:
    """N Gaussians with Adam state and per-Gaussian statistics.

    Attributes:
        params: leaf tensors by name, see `PARAMETERS`: means [N, 3], log_scales [N, 3], quats [N, 4] wxyz,
            opacity_logits [N], sh_dc [N, 3], sh_rest [N, K, 3].
        stats: tensors [N, ...] by name that are never optimised; their rows follow those of the parameters.
        adam: moments of the gradients.
        extent: radius of the scene that is observed now, metres; multiplies the learning rate of the means.
    """

    def __init__(self, config: TrainConfig, sh_degree: int, device: str, seed: int = 0) -> None:
        self.config = config
        self.sh_degree = sh_degree
        self.device = device
        self.extent = 1.0
        shapes = dict(
            means=(3,),
            log_scales=(3,),
            quats=(4,),
            opacity_logits=(),
            sh_dc=(3,),
            sh_rest=(num_sh_rest(sh_degree), 3),
        )
        self.params = {
            name: torch.zeros((0, *shapes[name]), device=device, requires_grad=True) for name in PARAMETERS
        }
        self.stats: dict[str, torch.Tensor] = {}
        self.adam = RowAdam()
        self._generator = torch.Generator(device).manual_seed(seed)

    def __len__(self) -> int:
        return self.params["means"].shape[0]

    def activated(self) -> dict[str, torch.Tensor]:
        """Parameters for the rasterizer: means, quats, scales [metres], opacities 0..1, sh [N, K, 3]."""
        return activate(self.params)

    def insert(self, means: torch.Tensor, colors: torch.Tensor, scales: torch.Tensor, opacity: float) -> None:
        """Adds isotropic Gaussians.

        Args:
            means: [M, 3] metres.
            colors: [M, 3] RGB in 0..1.
            scales: [M] standard deviation in metres.
            opacity: initial opacity of all of them.
        """
        count = means.shape[0]
        quats = torch.zeros(count, 4)
        quats[:, 0] = 1.0
        new = dict(
            means=means,
            log_scales=scales.clamp_min(1e-6).log()[:, None].expand(-1, 3),
            quats=quats,
            opacity_logits=torch.full((count,), math.log(opacity / (1 - opacity))),
            sh_dc=(colors - 0.5) / SH_C0,
            sh_rest=torch.zeros(count, num_sh_rest(self.sh_degree), 3),
        )
        self._append({name: value.to(self.device, torch.float32) for name, value in new.items()})

    def append(self, params: dict[str, torch.Tensor]) -> None:
        """Adds Gaussians in the form of `params`; their statistics are zero."""
        self._append({name: params[name].to(self.device, torch.float32) for name in PARAMETERS})

    def _append(self, new: dict[str, torch.Tensor], source: torch.Tensor | None = None) -> None:
        """Appends rows; their statistics are copies of rows `source` [M], or zero."""
        zeros = _append_zeros(new["means"].shape[0])
        self._rewrite(
            lambda name, p: torch.cat([p, new[name]]),
            zeros,
            zeros if source is None else lambda _, t: torch.cat([t, t[source]]),
        )

    def take(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Removes rows [M]: their parameters, statistics, and Adam's mean squared gradients, for `put`."""
        taken = {name: p.detach()[rows] for name, p in self.params.items()}
        taken |= {name: t[rows] for name, t in self.stats.items()}
        taken |= {_SQUARES + name: t[rows] for name, t in self.adam.squares.items()}
        mask = torch.ones(len(self), dtype=torch.bool, device=self.device)
        mask[rows] = False
        self.keep(mask)
        return taken

    def put(self, taken: dict[str, torch.Tensor]) -> None:
        """Appends rows of `take`; what is missing is zero. Adam's mean gradients begin anew."""
        count = taken["means"].shape[0]
        for name in taken.keys() - self.params.keys() - self.stats.keys():
            if not name.startswith(_SQUARES):
                self.stats[name] = taken[name].new_zeros(len(self), *taken[name].shape[1:]).to(self.device)

        def extended(name: str, t: torch.Tensor) -> torch.Tensor:
            new = taken.get(name)
            return torch.cat([t, t.new_zeros((count, *t.shape[1:])) if new is None else new.to(t)])

        def with_squares(name: str, t: torch.Tensor) -> torch.Tensor:
            return extended(_SQUARES + name, t)

        self._rewrite(extended, _append_zeros(count), extended, with_squares)

    def keep(self, mask: torch.Tensor) -> None:
        """Keeps the rows where `mask` [N] is true."""
        self._rewrite(*[lambda _, t: t[mask]] * 3)

    def _rewrite(self, on_param: Rows, on_mean: Rows, on_stat: Rows, on_square: Rows | None = None) -> None:
        """Rewrites parameters, Adam's moments and statistics by one function of name and rows each."""
        for name, old in list(self.params.items()):
            self.params[name] = on_param(name, old.detach()).contiguous().requires_grad_()
        self.adam.rewrite(on_mean, on_square or on_mean)
        self.stats = {name: on_stat(name, t) for name, t in self.stats.items()}

    def step(self, visible: torch.Tensor, means_decay: float = 1.0, other_decay: float = 1.0) -> None:
        """One Adam step with the current gradients.

        Args:
            visible: [N] bool, the Gaussians that the gradients' view shows. Only these are moved.
            means_decay: factor on the learning rate of the means.
            other_decay: factor on all other learning rates.
        """
        c = self.config
        rates = dict(
            means=c.lr_means * self.extent * means_decay,
            log_scales=c.lr_scales * other_decay,
            quats=c.lr_quats * other_decay,
            opacity_logits=c.lr_opacities * other_decay,
            sh_dc=c.lr_colors * other_decay,
            sh_rest=c.lr_colors / 20 * other_decay,
        )
        self.adam.step(self.params, rates, visible)

    @torch.no_grad()
    def densify(self, chosen: torch.Tensor, split_above: float) -> None:
        """Clones small and splits large Gaussians among the chosen ones (Kerbl et al. 2023, §5.2).

        Args:
            chosen: [N] bool.
            split_above: metres; a Gaussian with a larger scale is split into two, 1.6 times smaller.
        """
        large = self.params["log_scales"].exp().amax(-1) > split_above
        clone, split = (chosen & ~large).nonzero()[:, 0], (chosen & large).nonzero()[:, 0]
        rows = torch.cat([clone, split, split])
        new = {name: p.detach()[rows].clone() for name, p in self.params.items()}
        halves = slice(clone.shape[0], None)
        scales = new["log_scales"][halves].exp()
        noise = torch.randn(scales.shape, generator=self._generator, device=self.device)
        offsets = rotate(new["quats"][halves], noise * scales)
        new["means"][halves] += offsets
        new["log_scales"][halves] -= math.log(1.6)
        self._append(new, source=rows)
        mask = torch.ones(len(self), dtype=torch.bool, device=self.device)
        mask[split] = False
        self.keep(mask)

    @torch.no_grad()
    def transform(self, rows: torch.Tensor, motion: np.ndarray) -> None:
        """Moves Gaussians rigidly, together with their direction-dependent colours.

        Adam's moments are not rotated: they fade within a few steps.

        Args:
            rows: [M] indices.
            motion: [4, 4] float64 rigid transform, multiplies world points from the left.
        """
        moved = move_params({name: p.detach()[rows] for name, p in self.params.items()}, motion)
        for name in ("means", "quats", "sh_rest"):
            self.params[name][rows] = moved[name]

    def load_params(self, params: dict[str, torch.Tensor]) -> None:
        """Replaces all Gaussians by parameters in the form of `params`; new rows have zero statistics."""
        self.keep(torch.zeros(len(self), dtype=torch.bool, device=self.device))
        self.append(params)


def _append_zeros(count: int) -> Rows:
    """Appends rows of zeros."""
    return lambda _, t: torch.cat([t, t.new_zeros((count, *t.shape[1:]))])


def activate(params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parameters, see `PARAMETERS`, as the rasterizer takes them, see `Gaussians.activated`."""
    sh = params["sh_dc"][:, None]
    if params["sh_rest"].shape[1]:
        sh = torch.cat([sh, params["sh_rest"]], dim=1)
    return dict(
        means=params["means"],
        quats=params["quats"],
        scales=params["log_scales"].exp(),
        opacities=torch.sigmoid(params["opacity_logits"]),
        sh=sh,
    )


def move_params(params: dict[str, torch.Tensor], motion: np.ndarray) -> dict[str, torch.Tensor]:
    """Parameters, see `PARAMETERS`, of Gaussians that moved rigidly with their direction-dependent colours.

    Args:
        params: of the Gaussians; they stay as they are.
        motion: [4, 4] float64 rigid transform, multiplies their means from the left.
    """
    means, harmonics = params["means"], params["sh_rest"]
    rotation = torch.as_tensor(motion[:3, :3], dtype=torch.float64, device=means.device)
    shift = torch.as_tensor(motion[:3, 3], dtype=torch.float64, device=means.device)
    quat = torch.as_tensor(matrix_to_quat(motion[:3, :3]), dtype=torch.float32, device=means.device)
    if harmonics.shape[1]:
        harmonics = _sh_rotation(rotation, harmonics.shape[1]) @ harmonics
    return params | dict(
        means=(means.double() @ rotation.T + shift).float(),
        quats=_quat_product(quat, params["quats"]),
        sh_rest=harmonics,
    )


def rotate(quats: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Rotates vectors [N, 3] by quaternions wxyz [N, 4] of any length."""
    q = F.normalize(quats, dim=-1)
    w, axis = q[:, :1], q[:, 1:]
    t = 2 * torch.cross(axis, vectors, dim=-1)
    return vectors + w * t + torch.cross(axis, t, dim=-1)


def _quat_product(first: torch.Tensor, quats: torch.Tensor) -> torch.Tensor:
    """Hamilton products first * quats [N, 4] of a unit quaternion wxyz [4] and quaternions of any length."""
    w, axis = quats[:, :1], quats[:, 1:]
    real = first[0] * w - (axis @ first[1:])[:, None]
    imaginary = first[0] * axis + w * first[1:] + torch.linalg.cross(first[1:].expand_as(axis), axis)
    return torch.cat([real, imaginary], dim=-1)


def _sh_rotation(rotation: torch.Tensor, count: int) -> torch.Tensor:
    """Matrix [count, count] that rotates SH above degree 0: least squares over random directions.

    A rotation maps each degree onto itself, so the fit is exact.
    """
    directions = F.normalize(
        torch.randn(8 * count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1
    ).to(rotation.device)
    before, after = sh_basis(directions @ rotation, count), sh_basis(directions, count)
    return torch.linalg.lstsq(after, before).solution.float()
