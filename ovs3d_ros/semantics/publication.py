"""What a snapshot shows of each Gaussian: parked ones in pages that all snapshots share, then active ones."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from ovs3d_ros.io.row_file import RowFile, StoredRows, join_rows
from ovs3d_ros.mapping.blocks import Blocks, Parcel
from ovs3d_ros.mapping.gaussians import Gaussians, activate
from ovs3d_ros.packed_codes import PackedCodes
from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.semantics.lift import no_codes, pack_levels

Rows = dict[str, torch.Tensor]
Steps = tuple[torch.Tensor, torch.Tensor]  # of the codes of levels, and of the fused codes

_HEADROOM = 1.25  # of the steps of codes: parked codes are packed anew once the active ones outgrow them
_EVIDENCE = ("weight", "views")
_SHARED = ("means", "quats", "sh", *_EVIDENCE)


class Select(Protocol):
    """Chooses between the levels of a pyramid."""

    def __call__(self, level_codes: torch.Tensor, codec: FeatureCodec) -> torch.Tensor:
        """Scale-selection logits [M, S] of unit codes [M, S, d + 1]."""
        ...


class Publisher:
    """Makes the rows of snapshots.

    Parked Gaussians are packed once, and again when the codec changes or codes outgrow the steps that all
    have in common. The result lies in a temporary file, and all snapshots share it.

    Attributes:
        file: of what snapshots show of parked Gaussians.
    """

    def __init__(self, gaussians: Gaussians, blocks: Blocks, select: Select) -> None:
        """Takes the active and the parked part of a map."""
        self._gaussians, self._blocks, self._select = gaussians, blocks, select
        self.file = RowFile()
        self._codec: FeatureCodec | None = None  # of the parked codes
        self._steps: Steps | None = None  # of all codes, while something is parked

    def fields(self, codec: FeatureCodec | None) -> dict[str, Any]:
        """The fields gaussians, packed_codes, packed_levels, selection, weight and views of a snapshot.

        Args:
            codec: of the features of the active part; None: there are none.
        """
        g, parcels = self._gaussians, self._blocks.parcels
        codec = codec if "numerators" in g.stats else None
        active = {name: t.detach() for name, t in (g.params | g.stats).items()}
        if not parcels:
            shown, steps = self._show(active, codec, None)
            shown |= {name: shown[name].clone() for name in _SHARED}  # with what training changes
            return _to_fields(shown, steps)
        old = self._steps if codec is self._codec else None
        shown, steps = self._show(active, codec, old or self._no_steps(codec), _HEADROOM)
        if old is None or any(not torch.equal(a, b) for a, b in zip(old, steps, strict=True)):
            self._codec, self._steps = codec, steps
            for parcel in parcels:
                parcel.shown = None
        parts = [self._parked(parcel, codec) for parcel in parcels]
        return _to_fields(join_rows(parts, shown), steps)

    def _no_steps(self, codec: FeatureCodec | None) -> Steps:
        none = torch.zeros(codec.dim - 1 if codec else 0, device=self._gaussians.device)
        return none, none

    def _show(
        self, rows: Rows, codec: FeatureCodec | None, steps: Steps | None, headroom: float = 0.0
    ) -> tuple[Rows, Steps]:
        """What snapshots show of parameters and statistics, by name, and the steps of the codes.

        Args:
            rows: parameters and statistics.
            codec: of the features; None: there are none.
            steps: see `pack_levels`; so is headroom.
            headroom: of the steps.
        """
        count, device = len(rows["means"]), rows["means"].device
        shown = activate(rows)
        if codec is None:
            codes = no_codes(count, device)
            shown |= dict(selection=torch.zeros(count, 0, device=device))
            shown |= {name: torch.zeros(count, device=device) for name in _EVIDENCE}
        else:
            levels = codec.normalize(rows["numerators"])
            selection = self._select(levels, codec)
            codes = pack_levels(levels, selection, codec, steps, headroom)
            shown |= dict(selection=selection) | {name: rows[name] for name in _EVIDENCE}
        fused, levels = codes["packed_codes"], codes["packed_levels"]
        shown |= dict(level_values=levels.values, level_scales=levels.scales)
        if levels.scales.shape[1] != 1:
            shown |= dict(code_values=fused.values, code_scales=fused.scales)
        return shown, (levels.steps, fused.steps)

    def _parked(self, parcel: Parcel, codec: FeatureCodec | None) -> StoredRows:
        """What snapshots show of a parcel, computed when it is asked for the first time."""
        if parcel.shown is None:
            rows = parcel.read(codec)
            if codec is not None and "numerators" not in rows:  # parked before anything was lifted
                like = self._gaussians.stats
                rows |= {
                    n: like[n].new_zeros(len(parcel), *like[n].shape[1:]) for n in ("numerators", *_EVIDENCE)
                }
            parcel.shown = self.file.store(
                {n: t.contiguous() for n, t in self._show(rows, codec, self._steps)[0].items()}
            )
        return parcel.shown


def _to_fields(rows: Rows, steps: Steps) -> dict[str, Any]:
    """The fields of a snapshot from what `Publisher` shows."""
    levels = PackedCodes(rows.pop("level_values"), rows.pop("level_scales"), steps[0])
    if "code_values" in rows:
        fused = PackedCodes(rows.pop("code_values"), rows.pop("code_scales"), steps[1])
    else:  # of a single level: the same memory serves both
        fused = levels[:, 0]
    evidence = {name: rows.pop(name) for name in ("selection", *_EVIDENCE)}
    return dict(packed_codes=fused, packed_levels=levels, gaussians=rows) | evidence
