"""Connected components of points: each point is within a gap of another one of its component."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovs3d_ros.rasterize.kernel_cache import cached_njit

_FRAGMENT = 4  # times smaller than a component nearby: a fragment of it
_HOST_SAMPLE = 128  # points of a component that say how near it is to a fragment
_BITS = 20  # bits of a voxel's number along an axis
_TOUCHING = np.array(
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
class Components:
    """Connected components of M points.

    Attributes:
        number: [M] component of each point, counted from 0.
        count: number of components.
        places: [B, 3] metres, the centres of the blocks of voxels that hold the points.
        owner: [B] component of each block.
    """

    number: np.ndarray
    count: int
    places: np.ndarray
    owner: np.ndarray


def connected_components(points: np.ndarray, gap: float) -> Components:
    """Joins points whose voxels of side `gap` touch, corners included.

    Args:
        points: [M, 3] metres.
        gap: metres. Voxels are larger where the points would need more than a million of them along an axis.
    """
    # SciPy (k-d tree of the voxels, then csgraph) takes 15 to 50 times as long (benchmarks/libraries.py).
    if not len(points):
        return Components(np.zeros(0, np.int64), 0, np.zeros((0, 3)), np.zeros(0, np.int64))
    return Components(*_label_components(np.ascontiguousarray(points), float(gap)))


def join_fragments(points: np.ndarray, components: Components, gap: float) -> tuple[np.ndarray, int]:
    """Joins small components to large ones that are near: pieces of one thing with unseen parts in between.

    A component is a fragment if it is among the components within a `gap` of each other and has less than a
    quarter of the points of the largest of them. It joins the nearest that is no fragment.

    Args:
        points: [M, 3] metres.
        components: of the points.
        gap: metres; an even multiple of the gap of `components`.

    Returns:
        Number [M] of each point's component, counted from 0, and the number of components.
    """
    number, count = components.number, components.count
    if count < 2:
        return number, count
    # The blocks stand for their points: none lies across a border of the larger voxels.
    groups = connected_components(components.places, gap)
    group = np.empty(count, np.int64)
    group[components.owner] = groups.number
    target = _choose_hosts(points, *group_indices(number, count), group, groups.count)
    kept, joined = np.unique(target, return_inverse=True)
    return joined[number], len(kept)


@cached_njit(nogil=True)
def _choose_hosts(points, order, starts, group, groups):
    """For each component the one it joins, which is itself for all but fragments."""
    count = len(starts) - 1
    largest = np.zeros(groups, np.int64)
    for c in range(count):
        largest[group[c]] = max(largest[group[c]], starts[c + 1] - starts[c])
    target = np.arange(count)
    by_group, first = group_indices(group, groups)
    for c in range(count):
        size = starts[c + 1] - starts[c]
        if _FRAGMENT * size >= largest[group[c]]:
            continue
        center = np.zeros(3)
        for i in order[starts[c] : starts[c + 1]]:
            center += points[i]
        center /= size
        nearest = np.inf
        for host in by_group[first[group[c]] : first[group[c] + 1]]:
            host_size = starts[host + 1] - starts[host]
            if _FRAGMENT * host_size < largest[group[c]]:
                continue
            for k in range(starts[host], starts[host + 1], 1 + host_size // _HOST_SAMPLE):
                distance = 0.0
                for a in range(3):
                    distance += (points[order[k], a] - center[a]) ** 2
                if distance < nearest:
                    nearest, target[c] = distance, host
    return target


@cached_njit(nogil=True)
def _label_components(points, gap):
    """Union-find over blocks of 2 x 2 x 2 voxels; the voxels of one block all touch each other."""
    block_of, keys, filled, table, bits, places = _hash_blocks(points, gap)
    parent = np.arange(len(keys))
    for block in range(len(keys)):
        for step in range(14, 27):  # half of the neighbours; the other half finds this block
            if filled[block] & _TOUCHING[step]:
                offset = ((step // 9 - 1) << 2 * _BITS) + ((step // 3 % 3 - 1) << _BITS) + step % 3 - 1
                other = table[_find_slot(table, keys, keys[block] + offset, bits)]
                if other >= 0 and filled[other] & _TOUCHING[26 - step]:
                    a, b = _find_root(parent, block), _find_root(parent, other)
                    parent[max(a, b)] = min(a, b)
    number, components = np.empty(len(keys), np.int64), 0
    for block in range(len(keys)):  # a root comes before the blocks that point to it
        root = _find_root(parent, block)
        if root == block:
            number[block], components = components, components + 1
        else:
            number[block] = number[root]
    return number[block_of], components, places, number


@cached_njit(nogil=True)
def _hash_blocks(points, gap):
    """Sorts points into blocks.

    Returns:
        Block of each point [M], key of each block, its filled voxels (a bit each), a hash table from keys to
        blocks, the logarithm to base 2 of the table's size, and the centre of each block [B, 3].
    """
    count, low, high = len(points), np.full(3, np.inf), np.full(3, -np.inf)
    for i in range(count):
        for a in range(3):
            low[a], high[a] = min(low[a], points[i, a]), max(high[a], points[i, a])
    # The grid starts at the origin: a cluster must not fall apart because another one appeared elsewhere.
    side = max(gap, np.max(high - low) * 4 / (1 << _BITS))
    first = 2 * np.floor(low / side / 2) - 2
    bits, blocks, last, block = 10, 0, -1, -1
    keys, filled, block_of = np.empty(count, np.int64), np.zeros(count, np.uint8), np.empty(count, np.int64)
    table = np.full(1 << bits, -1, np.int32)
    for i in range(count):
        key, bit = 0, 0
        for a in range(3):
            voxel = int(np.floor(points[i, a] / side) - first[a])
            key, bit = (key << _BITS) + (voxel >> 1), 2 * bit + (voxel & 1)
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
        block_of[i] = block
        filled[block] |= 1 << bit
    places = np.empty((blocks, 3))
    for block in range(blocks):
        for a in range(3):
            voxel = 2 * ((keys[block] >> (2 - a) * _BITS) & ((1 << _BITS) - 1))
            places[block, a] = (voxel + 1 + first[a]) * side
    return block_of, keys[:blocks], filled, table, bits, places


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


@cached_njit(nogil=True)
def _find_root(parent, i):
    """The root of block i; shortens the path to it."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@cached_njit(nogil=True)
def group_indices(number, count):
    """Sorts indices [M] by their number below `count`; returns them and each number's start [count + 1].

    Indices of one number keep their order.
    """
    starts = np.zeros(count + 1, np.int64)
    for n in number:
        starts[n + 1] += 1
    starts = np.cumsum(starts)
    order, place = np.empty(len(number), np.int64), starts.copy()
    for i, n in enumerate(number):
        order[place[n]] = i
        place[n] += 1
    return order, starts
