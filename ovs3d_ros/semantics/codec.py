"""A linear code for CLIP features; cosines need no D numbers per pixel (docs/method.md, "Feature codec").

A feature is F = B a + A mu with orthonormal B [D, d], mean mu [D] and accumulated alpha A. With the extended
basis B^ = [B, mu] [D, d + 1] and the code z = [a; A], F = B^ z is linear in z: sums and blends of codes are
sums and blends of features. The only non-linear step, normalisation, needs the Gram matrix G = B^^T B^ alone:
cos(F, t) = z . (B^^T t) / sqrt(z^T G z).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

_FEW_TEXTS = 256  # up to so many, NumPy's sums take less time than threads that wait for each other


@dataclass(frozen=True, slots=True)
class FeatureCodec:
    """An immutable codec. A refit makes a new one, so a snapshot keeps the codec of its codes.

    Attributes:
        basis: [D, d] float32, orthonormal columns.
        mean: [D] float32.
        gram: [d + 1, d + 1] Gram matrix of [basis, mean].
    """

    basis: torch.Tensor
    mean: torch.Tensor
    gram: torch.Tensor

    @property
    def dim(self) -> int:
        """Length of z: d + 1."""
        return self.basis.shape[1] + 1

    @property
    def extended(self) -> torch.Tensor:
        """[D, d + 1] the basis with the mean as its last column."""
        return torch.cat([self.basis, self.mean[:, None]], dim=1)

    def to(self, device: str | torch.device) -> FeatureCodec:
        """A copy of the codec on a device."""
        return FeatureCodec(self.basis.to(device), self.mean.to(device), self.gram.to(device))

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """Codes z [..., d + 1] of features [..., D] of any length: |f| [B^T (f/|f| - mu); 1]."""
        norm = features.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        codes = (features / norm - self.mean) @ self.basis
        return torch.cat([codes, torch.ones_like(norm)], dim=-1) * norm

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Features [..., D] of codes [..., d + 1]; not normalised."""
        return z @ self.extended.T

    def norm(self, z: torch.Tensor) -> torch.Tensor:
        """Length [...] of the decoded features of codes [..., d + 1]."""
        return torch.linalg.vecdot(z @ self.gram, z).clamp_min(0.0).sqrt()

    def normalize(self, z: torch.Tensor) -> torch.Tensor:
        """Codes scaled so that the decoded feature has unit length; zero stays zero."""
        norm = self.norm(z)[..., None]
        return torch.where(norm > 1e-9, z / norm.clamp_min(1e-9), 0.0)

    def isometric(self, z: torch.Tensor) -> torch.Tensor:
        """Vectors [N, d + 1], unit or zero, whose products are the cosines of the features of codes z."""
        values, vectors = torch.linalg.eigh(self.gram.double())
        roots = (vectors * values.clamp_min(0).sqrt()).to(z.dtype)
        return torch.nn.functional.normalize(z @ roots, dim=-1)

    def directions(self, texts: torch.Tensor) -> torch.Tensor:
        """Matrix [d + 1, P]; codes [..., d + 1] of unit features times it are cosines with texts [P, D]."""
        if self.basis.device.type == "cpu" and texts.device.type == "cpu" and len(texts) <= _FEW_TEXTS:
            # Torch divides even ten texts between its threads. Where these wait in a busy loop, as unless
            # OMP_WAIT_POLICY says otherwise, 0.3 ms of work take 10 ms of all cores beside other threads.
            folded = np.einsum("pd,dk->kp", texts.numpy(), self.extended.numpy())
            return torch.from_numpy(folded)
        return (texts.to(self.basis.device) @ self.extended).T

    def cosine(self, z: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Cosines [..., P] of codes [..., d + 1] with unit text features [P, D]; 0 where the code is zero."""
        return self.normalize(z) @ self.directions(texts)

    def residual(self, features: torch.Tensor) -> float:
        """Share 0..1 of the variance of features [M, D], normalised first, that the code loses."""
        unit = features / features.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        centred = unit - self.mean
        lost = centred - (centred @ self.basis) @ self.basis.T
        return float(lost.square().sum() / centred.square().sum().clamp_min(1e-12))

    def translation_to(self, new: FeatureCodec) -> torch.Tensor:
        """Matrix M [d' + 1, d + 1] that converts codes, and sums of codes, to a new codec: z' = M z."""
        top = torch.cat([new.basis.T @ self.basis, (new.basis.T @ (self.mean - new.mean))[:, None]], dim=1)
        bottom = torch.zeros(1, self.dim, device=top.device)
        bottom[0, -1] = 1.0
        return torch.cat([top, bottom], dim=0)


def make_codec(basis: torch.Tensor, mean: torch.Tensor) -> FeatureCodec:
    """A codec from an orthonormal basis [D, d] and a mean [D]."""
    extended = torch.cat([basis, mean[:, None]], dim=1)
    return FeatureCodec(basis=basis, mean=mean, gram=extended.T @ extended)


class CodecFitter:
    """Fits the best linear code (PCA) from running first and second moments of unit features."""

    def __init__(self, feature_dim: int, code_dim: int) -> None:
        self.code_dim = min(code_dim, feature_dim)
        self.count = 0
        self._sum = torch.zeros(feature_dim, dtype=torch.float64)
        self._outer = torch.zeros(feature_dim, feature_dim, dtype=torch.float64)

    def add(self, features: torch.Tensor) -> None:
        """Adds features [M, D] of any length."""
        unit = torch.nn.functional.normalize(features.double().cpu(), dim=-1)
        self.count += unit.shape[0]
        self._sum += unit.sum(0)
        self._outer += unit.T @ unit

    def add_codes(self, z: torch.Tensor, codec: FeatureCodec) -> None:
        """Adds the decoded features of codes [M, d + 1], except zero codes, without forming them."""
        unit = codec.normalize(z[(z != 0).any(-1)]).double().cpu()
        extended = codec.extended.double().cpu()
        self.count += unit.shape[0]
        self._sum += extended @ unit.sum(0)
        self._outer += extended @ (unit.T @ unit) @ extended.T

    def joined(self, other: CodecFitter) -> CodecFitter:
        """A fitter of all features of both, with code_dim of this one."""
        both = CodecFitter(len(self._sum), self.code_dim)
        both.count = self.count + other.count
        both._sum, both._outer = self._sum + other._sum, self._outer + other._outer
        return both

    def fit(self) -> FeatureCodec:
        """The codec that loses the least variance of all features added so far."""
        mean = self._sum / self.count
        covariance = self._outer / self.count - torch.outer(mean, mean)
        _, vectors = torch.linalg.eigh(covariance)
        basis = vectors.flip(1)[:, : self.code_dim].float().contiguous()
        return make_codec(basis, mean.float())
