"""Sorts points into voxels. The grid of a map serves every query to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovs3d_ros.rasterize.kernel_cache import cached_njit

_BITS = 20  # bits of a voxel's number along an axis
WIDER = 4  # times the side of a voxel: the side of one in the wider grid
TOUCHING = np.array(
    [
        sum(
            1 << voxel
            for voxel in range(8)
            if all(step // 3**a % 3 - 1 in (0, 2 * (voxel >> a & 1) - 1) for a in range(3))
        )
        for step in range(27)
    ]
)
"""For each neighbour of a block of 2 x 2 x 2 voxels, the voxels (a bit each) that touch it.

The neighbour at offset (x, y, z) has the number 9 (x + 1) + 3 (y + 1) + z + 1."""


@dataclass(frozen=True, slots=True)
class VoxelGrid:
    """M points in B blocks of 2 x 2 x 2 voxels, about 8 bytes a point.

    Attributes:
        cells: [M] int32, 8 times the block of each point plus its voxel in the block.
        starts: [B + 1] int32, where the neighbours of each block start in `others`.
        others: [E] int32 neighbours; each pair of blocks is listed once.
        steps: [E] int8, the number of the neighbour as of `TOUCHING`.
    """

    cells: np.ndarray
    starts: np.ndarray
    others: np.ndarray
    steps: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All arrays, as kernels take them."""
        return self.cells, self.starts, self.others, self.steps


@dataclass(frozen=True, slots=True)
class PointGrid:
    """M points in voxels of side `gap`, and the blocks of these in voxels of four times that side.

    Attributes:
        fine: of the points.
        wide: of the centres of the B blocks. No block lies across a border of the wider voxels, so the
            blocks stand for their points.
    """

    fine: VoxelGrid
    wide: VoxelGrid


def sort_into_voxels(points: np.ndarray, gap: float) -> PointGrid:
    """The grid of points [M, 3] in metres.

    Args:
        points: see above.
        gap: side of a voxel in metres. Voxels are larger where the points would need more than a million of
            them along an axis.
    """
    fine, places = _make_grid(np.ascontiguousarray(points), gap)
    return PointGrid(fine, _make_grid(places, WIDER * gap)[0])


def _make_grid(points: np.ndarray, gap: float) -> tuple[VoxelGrid, np.ndarray]:
    """The grid of points [M, 3], and the centre of each block [B, 3]."""
    if not len(points):
        empty = np.zeros(0, np.int32)
        return VoxelGrid(empty, np.zeros(1, np.int32), empty, np.zeros(0, np.int8)), np.zeros((0, 3))
    cells, keys, table, bits, places = _hash_blocks(points, float(gap))
    return VoxelGrid(cells, *_link_blocks(keys, table, bits)), places


@cached_njit(nogil=True)
def _hash_blocks(points, gap):
    """Sorts points into blocks.

    Returns:
        Cell of each point [M], key of each block, a hash table from keys to blocks, the logarithm to base 2
        of the table's size, and the centre of each block [B, 3].
    """
    count, low, high = len(points), np.full(3, np.inf), np.full(3, -np.inf)
    for i in range(count):
        for a in range(3):
            low[a], high[a] = min(low[a], points[i, a]), max(high[a], points[i, a])
    # The grid starts at the origin: a cluster must not fall apart because another one appeared elsewhere.
    extent = max(high[0] - low[0], high[1] - low[1], high[2] - low[2])
    side, first = max(gap, extent * 4 / (1 << _BITS)), np.empty(3)
    for a in range(3):
        first[a] = 2 * np.floor(low[a] / side / 2) - 2
    bits, blocks, last, block = 10, 0, -1, -1
    keys, cells = np.empty(count, np.int64), np.empty(count, np.int32)
    table = np.full(1 << bits, -1, np.int32)
    for i in range(count):
        key, voxel = 0, 0
        for a in range(3):
            place = int(np.floor(points[i, a] / side) - first[a])
            key, voxel = (key << _BITS) + (place >> 1), 2 * voxel + (place & 1)
        if key != last:  # neighbouring points often follow each other
            last, slot = key, _find_slot(table, keys, key, bits)
            block = table[slot]
            if block < 0:
                block = blocks
                table[slot], keys[block] = block, key
                blocks += 1
                if 2 * blocks > len(table):
                    bits += 2
                    table = _make_table(keys, blocks, bits)
        cells[i] = 8 * block + voxel
    places = np.empty((blocks, 3))
    for block in range(blocks):
        for a in range(3):
            place = 2 * ((keys[block] >> (2 - a) * _BITS) & ((1 << _BITS) - 1))
            places[block, a] = (place + 1 + first[a]) * side
    return cells, keys[:blocks].copy(), table, bits, places


@cached_njit(nogil=True)
def _link_blocks(keys, table, bits):
    """Starts, others and steps of a `VoxelGrid`."""
    starts, pairs = np.zeros(len(keys) + 1, np.int32), 0
    others, steps = np.empty(13 * len(keys), np.int32), np.empty(13 * len(keys), np.int8)
    for block in range(len(keys)):
        for step in range(14, 27):  # half of the neighbours; the other half finds this block
            offset = ((step // 9 - 1) << 2 * _BITS) + ((step // 3 % 3 - 1) << _BITS) + step % 3 - 1
            other = table[_find_slot(table, keys, keys[block] + offset, bits)]
            if other >= 0:
                others[pairs], steps[pairs] = other, step
                pairs += 1
        starts[block + 1] = pairs
    return starts, others[:pairs].copy(), steps[:pairs].copy()


@cached_njit(nogil=True)
def _make_table(keys, blocks, bits):
    """A hash table of 2^bits slots that holds the first `blocks` keys."""
    table = np.full(1 << bits, -1, np.int32)
    for block in range(blocks):
        table[_find_slot(table, keys, keys[block], bits)] = block
    return table


@cached_njit(nogil=True)
def _find_slot(table, keys, key, bits):
    """The slot of a key in the table, or the empty slot for it (Fibonacci hashing)."""
    mask = (1 << bits) - 1
    slot = ((key * -0x61C8864680B583EB) >> (64 - bits)) & mask
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = (slot + 1) & mask
    return slot
