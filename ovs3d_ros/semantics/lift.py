"""Closed-form lifting of 2D features into Gaussians (docs/method.md, "Lifting features").

With unit features phi_k(p) of pyramid level k at pixel p and blending weights w_i(p) = alpha_i T_i, each
keyframe adds N_ik += sum_p w_i(p) phi_k(p) and D_i += sum_p w_i(p) in code space, where sums stay linear. The
direction of N_ik is the Gaussian's feature; |N_ik| / D_i in 0..1 measures how far its views agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F

from ovs3d_ros.config import LiftConfig
from ovs3d_ros.mapping.blocks import LIFTING, Blocks
from ovs3d_ros.mapping.gaussians import Gaussians
from ovs3d_ros.mapping.keyframes import resize_mask
from ovs3d_ros.packed_codes import PackedCodes
from ovs3d_ros.rasterize import Rasterizer, Splats, Views
from ovs3d_ros.semantics.codec import CodecFitter, FeatureCodec
from ovs3d_ros.semantics.packing import pack_codes, with_unit_length
from ovs3d_ros.types import CropTable, Keyframe, MapSnapshot, UserError


def pixel_codes(table: CropTable, codec: FeatureCodec, width: int, height: int) -> torch.Tensor:
    """Per-pixel codes of unit features, computed from a crop table.

    The feature of a pixel is the mean of the unit embeddings of all crops that cover its centre (3D-OVS), or,
    for a dense map, their bilinear interpolation (docs/method.md, "Language features").

    Returns:
        [S, H, W, d + 1] codes on the codec's device; zero where no crop covers the pixel.
    """
    device = codec.mean.device
    boxes, levels = table.boxes.to(device), table.levels.to(device)
    z = codec.encode(F.normalize(table.embeddings.to(device, torch.float32), dim=-1))
    if table.grid is not None:
        rows, columns = table.grid
        # Channels stay last in memory: transposing them there and back took as long as all the rest.
        maps = z.view(1, rows, columns, -1).permute(0, 3, 1, 2)
        dense = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
        return codec.normalize(dense.permute(0, 2, 3, 1))
    return torch.stack(
        [
            codec.normalize(_box_sums(boxes[levels == k], z[levels == k], width, height))
            for k in range(table.num_levels)
        ]
    )


def _box_sums(boxes: torch.Tensor, values: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Sums [H, W, C] of the values [M, C] of all boxes [M, 4] over each pixel centre.

    Computed by a 2D difference array.

    Sums serve as means, because codes are normalised afterwards.
    """
    # A pixel centre x + 0.5 is in [left, right) exactly if x is in [round(left), round(right)), but for ties.
    left, right = ((boxes[:, i] * width).round().long().clamp(0, width) for i in (0, 2))
    top, bottom = ((boxes[:, i] * height).round().long().clamp(0, height) for i in (1, 3))
    differences = values.new_zeros((height + 1) * (width + 1), values.shape[1])
    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        differences.index_add_(0, y * (width + 1) + x, values, alpha=sign)
    sums = differences.view(height + 1, width + 1, -1).double().cumsum(0).cumsum(1)
    covered = sums[:height, :width].float()
    return torch.where(covered[..., -1:] > 1e-4, covered, torch.zeros_like(covered))


def fuse_levels(numerators: torch.Tensor, selection: torch.Tensor, codec: FeatureCodec) -> torch.Tensor:
    """Blends the pyramid levels to one unit code per Gaussian: norm(sum_k softmax(selection)_k N_k / |N_k|).

    Args:
        numerators: [N, S, d + 1] lifted sums N.
        selection: [N, S] scale-selection logits; zeros give all levels equal weight.
        codec: codec of the sums.

    Returns:
        [N, d + 1] codes of unit features, zero where nothing was lifted.
    """
    weights = torch.softmax(selection, dim=-1)[..., None]
    return codec.normalize((weights * codec.normalize(numerators)).sum(1))


def pack_levels(
    sums: torch.Tensor,
    selection: torch.Tensor,
    codec: FeatureCodec,
    steps: tuple[torch.Tensor, torch.Tensor] | None = None,
    headroom: float = 0.0,
) -> dict[str, PackedCodes]:
    """The fields `packed_codes` and `packed_levels` of a snapshot.

    Args:
        sums: [N, S, d + 1] sums or codes of each level, of any length; zero where nothing was lifted.
        selection: [N, S] see `fuse_levels`.
        codec: codec of the codes.
        steps: of the levels and of the codes, see `pack_codes`.
        headroom: see `pack_codes`.
    """
    of_levels, of_codes = steps or (None, None)
    levels = with_unit_length(pack_codes(sums, of_levels, headroom), codec.gram)
    if sums.shape[1] == 1:  # nothing to blend: the same memory serves both
        return dict(packed_codes=levels[:, 0], packed_levels=levels)
    fused = pack_codes(fuse_levels(sums, selection, codec), of_codes, headroom)
    return dict(packed_codes=with_unit_length(fused, codec.gram), packed_levels=levels)


def no_codes(count: int, device: torch.device | str) -> dict[str, PackedCodes]:
    """The same fields of a map in which nothing was lifted."""
    codes, levels = torch.zeros(count, 1, device=device), torch.zeros(count, 0, 1, device=device)
    return dict(packed_codes=pack_codes(codes), packed_levels=pack_codes(levels))


def check_num_levels(table: CropTable, gaussians: Gaussians) -> None:
    """Raises UserError if the table has another number of pyramid levels than the features of the map."""
    numerators = gaussians.stats.get("numerators")
    if numerators is not None and numerators.shape[1] != table.num_levels:
        raise UserError(
            f"images are encoded at {table.num_levels} levels, but the map has features of "
            f"{numerators.shape[1]}: "
            "set clip.mode and the crop parameters to those of the map, or begin a new map"
        )


EVIDENCE = ("numerators", "weight", "max_weight", "views")


class Lifter:
    """Accumulates the features of keyframes in the statistics of the Gaussians.

    It writes the statistics `numerators` [N, S, d + 1], `weight` [N] (D_i, in pixels), `max_weight` [N]
    (largest w_i(p) in any view) and `views` [N] (number of keyframes that saw the Gaussian).

    Attributes:
        codec: codec of the numerators; None before the first keyframe.
    """

    def __init__(self, config: LiftConfig, code_dim: int) -> None:
        self.config = config
        self.code_dim = code_dim
        self.codec: FeatureCodec | None = None
        self._fitter: CodecFitter | None = None
        self._fitted_on: set[int] = set()
        self._relifts = 0

    def load(self, loaded: MapSnapshot, gaussians: Gaussians) -> None:
        """Takes up the evidence of a map file for the Gaussians of the same file."""
        assert loaded.codec is not None, "the map has no language features"
        self.codec = loaded.codec.to(gaussians.device)
        evidence = dict(
            numerators=loaded.packed_levels.unpack() * loaded.weight[:, None, None],
            weight=loaded.weight,
            views=loaded.views,
            max_weight=torch.zeros_like(loaded.weight),
        )
        gaussians.stats.update({name: values.to(gaussians.device) for name, values in evidence.items()})

    def learn(self, keyframes: Iterable[Keyframe]) -> None:
        """Takes up the embeddings of keyframes that were lifted before the map was saved."""
        for keyframe in keyframes:
            if keyframe.crops is not None:
                embeddings = keyframe.crops.embeddings.float()
                self._fitter = self._fitter or CodecFitter(embeddings.shape[1], self.code_dim)
                self._fitter.add(embeddings)
                self._fitted_on.add(keyframe.index)

    def lift(self, keyframe: Keyframe, gaussians: Gaussians, rasterizer: Rasterizer) -> None:
        """Adds the evidence of one encoded keyframe."""
        assert keyframe.crops is not None, "only encoded keyframes are lifted"
        self._update_codec(keyframe, gaussians)
        if EVIDENCE[0] not in gaussians.stats:
            self._reset_evidence(gaussians, keyframe.crops.num_levels, self.codec, prefix="")
        self._accumulate(keyframe, gaussians, rasterizer, self.codec, prefix="")

    def relift(
        self,
        keyframes: Sequence[Keyframe],
        gaussians: Gaussians,
        rasterizer: Rasterizer,
        blocks: Blocks,
        cap: int,
    ) -> Iterator[None]:
        """Lifts keyframes anew into the current Gaussians, with a codec fitted on all embeddings so far.

        Yields after each keyframe. The old evidence stays in place until the last keyframe is lifted.
        Gaussians may be added and removed in between. Parked ones are woken where a keyframe sees them.
        """
        crops = keyframes[0].crops
        assert self._fitter is not None and crops is not None, "lift a keyframe before all are lifted anew"
        codec = self._fitter.fit().to(gaussians.device)
        self._relifts += 1
        prefix = f"{LIFTING}{self._relifts}_"  # of its own: one that was abandoned may have left parked ones
        self._reset_evidence(gaussians, crops.num_levels, codec, prefix)
        try:
            for keyframe in keyframes:
                if blocks.parcels:
                    blocks.codec = self.codec
                    blocks.visit(keyframe.index, cap)
                self._accumulate(keyframe, gaussians, rasterizer, codec, prefix)
                yield
            self.codec = blocks.codec = codec
            blocks.adopt(prefix, EVIDENCE, codec)
            for name in EVIDENCE:
                gaussians.stats[name] = gaussians.stats[prefix + name]
        finally:  # also when the caller abandons the lift: the evidence is the largest part of a map
            for name in EVIDENCE:
                gaussians.stats.pop(prefix + name, None)

    def _accumulate(
        self,
        keyframe: Keyframe,
        gaussians: Gaussians,
        rasterizer: Rasterizer,
        codec: FeatureCodec,
        prefix: str,
    ) -> None:
        """Adds a keyframe to the evidence under `prefix`."""
        camera = keyframe.camera.fitted(self.config.image_size)
        codes = pixel_codes(keyframe.crops, codec, camera.width, camera.height)  # [S, H, W, C]
        targets = codes.permute(1, 2, 0, 3).flatten(2)[None].to(gaussians.device)
        with torch.no_grad():
            splats = Splats.from_dict(gaussians.activated())
            views = Views.from_camera(camera, keyframe.camtoworld, gaussians.device)
            if keyframe.mask is None:
                numerator, weight, peak = rasterizer.lift(splats, targets.contiguous(), views)
            else:  # a masked pixel adds neither to the sums nor to the weights
                shown = resize_mask(keyframe.mask, camera).to(targets)[None, :, :, None]
                targets = torch.cat([targets * shown, shown], dim=-1)
                sums, _, peak = rasterizer.lift(splats, targets.contiguous(), views)
                numerator, weight = sums[:, :-1], sums[:, -1]
        seen = weight > 1e-3
        decay = 1 - (1 - self.config.decay) * seen.float()
        old = {name: gaussians.stats[prefix + name] for name in EVIDENCE}
        new = dict(
            numerators=old["numerators"] * decay[:, None, None] + numerator.view_as(old["numerators"]),
            weight=old["weight"] * decay + weight,
            max_weight=torch.maximum(old["max_weight"], peak),
            views=old["views"] + seen,
        )
        gaussians.stats.update({prefix + name: value for name, value in new.items()})

    def _reset_evidence(self, gaussians: Gaussians, levels: int, codec: FeatureCodec, prefix: str) -> None:
        """Sets the evidence under `prefix` to zero."""
        count, device = len(gaussians), gaussians.device
        gaussians.stats[prefix + "numerators"] = torch.zeros(count, levels, codec.dim, device=device)
        for name in EVIDENCE[1:]:
            gaussians.stats[prefix + name] = torch.zeros(count, device=device)

    def _update_codec(self, keyframe: Keyframe, gaussians: Gaussians) -> None:
        """Refits the codec if it loses too much of the new embeddings, and converts the sums to it."""
        if keyframe.index in self._fitted_on:
            return
        assert keyframe.crops is not None, "only encoded keyframes have embeddings"
        embeddings = keyframe.crops.embeddings.to(gaussians.device, torch.float32)
        self._fitter = self._known_features(gaussians) or CodecFitter(embeddings.shape[1], self.code_dim)
        self._fitter.add(embeddings)
        self._fitted_on.add(keyframe.index)
        if self.codec is None:
            self.codec = self._fitter.fit().to(gaussians.device)
        elif self.codec.residual(embeddings) > self.config.residual:
            new = self._fitter.fit().to(gaussians.device)
            gaussians.stats["numerators"] = gaussians.stats["numerators"] @ self.codec.translation_to(new).T
            self.codec = new

    def _known_features(self, gaussians: Gaussians) -> CodecFitter | None:
        """The features so far; None before the first ones."""
        if self._fitter is not None or self.codec is None:
            return self._fitter
        # The map was loaded without its images: its Gaussians stand in for their embeddings.
        fitter = CodecFitter(len(self.codec.mean), self.code_dim)
        fitter.add_codes(gaussians.stats["numerators"].flatten(0, 1), self.codec)
        return fitter

    def prepare_merge(self, other: CodecFitter, gaussians: Gaussians) -> tuple[CodecFitter, FeatureCodec]:
        """The features of this map and another one, and the codec for both; changes nothing."""
        own = self._known_features(gaussians)
        assert own is not None, "maps of colours have no features to merge"
        both = own.joined(other)
        return both, both.fit().to(gaussians.device)

    def finish_merge(
        self,
        both: tuple[CodecFitter, FeatureCodec],
        evidence: dict[str, torch.Tensor],
        gaussians: Gaussians,
        keyframes: int,
    ) -> None:
        """Takes up the merged evidence.

        Args:
            both: of `prepare_merge`.
            evidence: `numerators` in the new codec, `weight` and `views` of all Gaussians.
            gaussians: of both maps.
            keyframes: number of those of the other map, which come first from now on.
        """
        self._fitter, self.codec = both
        self._fitted_on = {keyframes + index for index in self._fitted_on} | set(range(keyframes))
        gaussians.stats.update({name: values.to(gaussians.device) for name, values in evidence.items()})
