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
Kind = tuple[FeatureCodec | None, Steps]  # what codes must have in common to be in one snapshot

_HEADROOM = 1.25  # of the steps of codes: parked codes are packed anew once the active ones outgrow them
_AT_ONCE = 4  # parcels that are packed anew with one snapshot
_EVIDENCE = ("weight", "views")
_SHARED = ("means", "quats", "sh", *_EVIDENCE)


class Select(Protocol):
    """Chooses between the levels of a pyramid."""

    def __call__(self, sums: torch.Tensor, codec: FeatureCodec) -> torch.Tensor:
        """Scale-selection logits [M, S] of lifted sums [M, S, d + 1]."""
        ...


class Publisher:
    """Makes the rows of snapshots.

    Parked Gaussians are packed once. When the codec changes, or codes outgrow the steps that all have in
    common, they are packed anew, a few parcels with each snapshot; until all are, snapshots keep to the codec
    and steps before. The result lies in a temporary file, and all snapshots share it.

    Attributes:
        file: of what snapshots show of parked Gaussians.
    """

    def __init__(self, gaussians: Gaussians, blocks: Blocks, select: Select) -> None:
        """Takes the active and the parked part of a map."""
        self._gaussians, self._blocks, self._select = gaussians, blocks, select
        self.file = RowFile()
        self._kind: Kind | None = None  # of all codes, while something is parked
        self._next: Kind | None = None  # of `Parcel.coming`

    @property
    def is_settled(self) -> bool:
        """Whether a map that does not change is shown the same again: no parcels wait to be packed anew."""
        return self._next is None or not self._blocks.parcels

    def fields(self, codec: FeatureCodec | None) -> dict[str, Any]:
        """The fields codec, gaussians, packed_codes, packed_levels, selection, weight, views and parked.

        Args:
            codec: of the features of the active part; None: there are none.
        """
        g, parcels = self._gaussians, self._blocks.parcels
        active = {name: t.detach() for name, t in (g.params | g.stats).items()}
        lifted = codec if "numerators" in g.stats else None
        if not parcels:
            shown, steps = self._show(active, lifted, None)
            shown |= {name: shown[name].clone() for name in _SHARED}  # with what training changes
            return dict(codec=codec) | _to_fields(shown, steps)
        if self._kind is None or lifted is None or all(parcel.shown is None for parcel in parcels):
            shown, steps = self._show(active, lifted, self._no_steps(lifted), _HEADROOM)
            self._kind, self._next = (lifted, steps), None
            for parcel in parcels:
                parcel.shown = parcel.coming = None
        else:
            self._advance(active, lifted)
            shown = self._in_kind(active, lifted)
        kind = self._kind
        for parcel in parcels:
            parcel.shown = parcel.shown or self._pack(parcel, kind)
        parked = tuple(parcel.shown for parcel in parcels if parcel.shown)
        joined = join_rows(parked, shown)
        return dict(codec=codec if lifted is None else kind[0], parked=parked) | _to_fields(joined, kind[1])

    def _advance(self, active: Rows, codec: FeatureCodec) -> None:
        """Packs a few parcels for the next kind of codes, and turns to it when all are."""
        if self._next is None and self._kind is not None and codec is not self._kind[0]:
            self._next = codec, self._show(active, codec, self._no_steps(codec), _HEADROOM)[1]
        if self._next is None:
            return
        parcels = self._blocks.parcels
        for parcel in [parcel for parcel in parcels if parcel.coming is None][:_AT_ONCE]:
            parcel.coming = self._pack(parcel, self._next)
        if all(parcel.coming for parcel in parcels):
            for parcel in parcels:
                parcel.shown, parcel.coming = parcel.coming, None
            self._kind, self._next = self._next, None

    def _in_kind(self, active: Rows, codec: FeatureCodec) -> Rows:
        """What snapshots show of the active part, in the kind of codes of the parked one."""
        assert self._kind is not None, "something is parked"
        shared, steps = self._kind
        if shared is not None and codec is not shared:
            active = active | dict(numerators=active["numerators"] @ codec.translation_to(shared).T)
        shown, needed = self._show(active, shared, steps, _HEADROOM)
        if all(torch.equal(a, b) for a, b in zip(needed, steps, strict=True)):
            return shown
        self._next = self._next or (shared, needed)
        return self._show(active, shared, steps)[0]

    def _pack(self, parcel: Parcel, kind: Kind) -> StoredRows:
        """What snapshots show of a parcel, in a kind of codes."""
        codec, steps = kind
        rows = parcel.read(codec)
        if codec is not None and "numerators" not in rows:  # parked before anything was lifted
            like = self._gaussians.stats
            names = ("numerators", *_EVIDENCE)
            rows |= {n: like[n].new_zeros(len(parcel), *like[n].shape[1:]) for n in names}
        shown = self._show(rows, codec, steps)[0]
        return self.file.store({name: t.contiguous() for name, t in shown.items()})

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
            sums = rows["numerators"]
            selection = self._select(sums, codec)
            codes = pack_levels(sums, selection, codec, steps, headroom)
            shown |= dict(selection=selection) | {name: rows[name] for name in _EVIDENCE}
        fused, levels = codes["packed_codes"], codes["packed_levels"]
        shown |= dict(level_values=levels.values, level_scales=levels.scales)
        if levels.scales.shape[1] != 1:
            shown |= dict(code_values=fused.values, code_scales=fused.scales)
        return shown, (levels.steps, fused.steps)


def _to_fields(rows: Rows, steps: Steps) -> dict[str, Any]:
    """The fields of a snapshot from what `Publisher` shows."""
    levels = PackedCodes(rows.pop("level_values"), rows.pop("level_scales"), steps[0])
    if "code_values" in rows:
        fused = PackedCodes(rows.pop("code_values"), rows.pop("code_scales"), steps[1])
    else:  # of a single level: the same memory serves both
        fused = levels[:, 0]
    evidence = {name: rows.pop(name) for name in ("selection", *_EVIDENCE)}
    return dict(packed_codes=fused, packed_levels=levels, gaussians=rows) | evidence
