"""Connected components of labelled points: each point is within a gap of another one of its component.

What is joined are nodes: the points of one label in one block of voxels. All labels are joined in one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ovs3d_ros.query.voxels import TOUCHING, PointGrid, VoxelGrid
from ovs3d_ros.rasterize.kernel_cache import cached_njit
from ovs3d_ros.rasterize.kernels_project import thread_range
from ovs3d_ros.rasterize.thread_pool import ThreadPool, shared_pool

_FRAGMENT = 4  # times smaller than a component nearby: a fragment of it
_HOST_SAMPLE = 128  # points of a component that say how near it is to a fragment


@dataclass(frozen=True, slots=True)
class Components:
    """Connected components of M labelled points, one label each.

    Attributes:
        number: [M] int32 component of each point, counted from 0; arbitrary without a label.
        labels: [C] label of each component.
        nodes: [K] component of each node.
        blocks: [K] block of each node.
    """

    number: np.ndarray
    labels: np.ndarray
    nodes: np.ndarray
    blocks: np.ndarray


def connected_components(labels: np.ndarray, grid: VoxelGrid, pool: ThreadPool) -> Components:
    """Joins points of one label whose voxels touch, corners included.

    Args:
        labels: [M] int16 of the points, 0 = none.
        grid: of the points.
        pool: runs it.
    """
    # SciPy (k-d tree of the voxels, then csgraph) takes 3 to 22 times as long (benchmarks/libraries.py).
    count, blocks = len(labels), len(grid.starts) - 1
    # Each thread numbers the nodes of its own blocks from its own start; untouched memory costs nothing.
    kinds = np.int32, np.int16, np.uint8, np.int32, np.int32, np.int32
    nodes = tuple(np.empty(pool.size * count, kind) for kind in kinds)
    number, heads = np.empty(count, np.int32), np.empty(blocks, np.int32)
    ends = pool.run(
        lambda part, parts: _join_blocks(labels, grid.arrays, (part, parts), number, heads, nodes)
    )
    return Components(number, *_number_components(labels, grid.arrays, heads, nodes, np.array(ends), number))


def join_fragments(
    components: Components,
    grid: PointGrid,
    sizes: np.ndarray,
    centers: np.ndarray,
    sample: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, int]:
    """Joins small components to large ones that are near: pieces of one thing with unseen parts in between.

    A component is a fragment if it is among the components of one label within the side of the wider voxels
    of each other and has less than a quarter of the points of the largest of them. It joins the nearest that
    is no fragment.

    Args:
        components: of the points.
        grid: of the points.
        sizes: [C] number of points of each component.
        centers: [C, 3] metres, mean of its points.
        sample: gives points [S, 3] in metres of chosen components [K], about so many of each, and where those
            of each start and stop [K, 2].

    Returns:
        For each component [C] what it belongs to, counted from 0, and the number of these.
    """
    count = len(components.labels)
    wide = VoxelGrid(grid.wide.cells[components.blocks], *grid.wide.arrays[1:])
    groups = connected_components(components.labels[components.nodes], wide, shared_pool(1))
    group = np.zeros(count, np.int64)
    group[components.nodes] = groups.number
    target, is_disputed = _find_hosts(sizes, group, len(groups.labels))
    if (target < 0).any():
        hosts = np.flatnonzero(is_disputed)
        points, segments = sample(hosts, _HOST_SAMPLE)
        by_group = group_indices(group[hosts], len(groups.labels))
        _choose_hosts(target, centers, group, hosts, by_group, points, segments)
    is_kept = target == np.arange(count)
    return (np.cumsum(is_kept) - 1)[target], int(is_kept.sum())


@cached_njit(nogil=True)
def _find_hosts(sizes, group, groups):
    """What each component joins: itself, unless it is a fragment; -1 where there is a choice.

    Returns:
        target [C], and the choice [C]: the large components of groups with several of them and a fragment.
    """
    largest, hosts = np.zeros(groups, np.int64), np.zeros(groups, np.int64)
    last, has_fragment = np.zeros(groups, np.int64), np.zeros(groups, np.bool_)
    for c in range(len(sizes)):
        largest[group[c]] = max(largest[group[c]], sizes[c])
    target, is_disputed = np.arange(len(sizes)), np.zeros(len(sizes), np.bool_)
    for c in range(len(sizes)):
        g = group[c]
        if _FRAGMENT * sizes[c] < largest[g]:
            has_fragment[g] = True
        else:
            hosts[g] += 1
            last[g] = c
    for c in range(len(sizes)):
        g = group[c]
        if _FRAGMENT * sizes[c] < largest[g]:
            target[c] = last[g] if hosts[g] == 1 else -1
        else:
            is_disputed[c] = has_fragment[g] and hosts[g] > 1
    return target, is_disputed


@cached_njit(nogil=True)
def _choose_hosts(target, centers, group, hosts, by_group, points, segments):
    """Sets the `target` of components where it is -1: the host of the nearest point."""
    order, first = by_group
    for c in range(len(target)):
        if target[c] < 0:
            nearest = np.inf
            for host in order[first[group[c]] : first[group[c] + 1]]:
                for k in range(segments[host, 0], segments[host, 1]):
                    distance = 0.0
                    for a in range(3):
                        distance += (points[k, a] - centers[c, a]) ** 2
                    if distance < nearest:
                        nearest, target[c] = distance, hosts[host]


@cached_njit(nogil=True)
def _join_blocks(labels, grid, part, number, heads, nodes):
    """Makes the nodes of one part of all blocks and joins them, but not with those of other parts.

    Union-find over nodes (next of the same block, label, filled voxels, block, parent, border);
    `border` lists the nodes with neighbours in other parts. Returns the end of the nodes and of the list.
    """
    cells, starts, _, _ = grid
    following, label_of, filled, blocks, parent, border = nodes
    low, high = thread_range(part[0], part[1], len(starts) - 1)
    first = len(labels) * part[0]
    end = borders = first
    heads[low:high] = -1
    block, label, node = -1, 0, -1
    for i in range(len(labels)):
        if not labels[i] or not low <= cells[i] >> 3 < high:
            continue
        if cells[i] >> 3 != block or labels[i] != label:  # neighbouring points often follow each other
            block, label = cells[i] >> 3, labels[i]
            node = _find_node(heads[block], label, following, label_of)
            if node < 0:
                node, end = end, end + 1
                following[node], heads[block] = heads[block], node
                label_of[node], filled[node], blocks[node], parent[node] = label, 0, block, node
        filled[node] |= 1 << (cells[i] & 7)
        number[i] = node
    for node in range(first, end):
        if _link_node(node, low, high, grid, heads, nodes):
            border[borders] = node
            borders += 1
    return end, borders


@cached_njit(nogil=True)
def _find_node(node, label, following, label_of):
    """The node of a label in the list of a block that begins with `node`, or -1."""
    while node >= 0 and label_of[node] != label:
        node = following[node]
    return node


@cached_njit(nogil=True)
def _link_node(node, low, high, grid, heads, nodes):
    """Joins a node with those it touches in blocks `low` to `high`; whether it has other neighbours."""
    _, starts, others, steps = grid
    following, label_of, filled, blocks, parent, _ = nodes
    root, label, own, has_others = find_root(parent, node), label_of[node], filled[node], False
    for k in range(starts[blocks[node]], starts[blocks[node] + 1]):
        if own & TOUCHING[steps[k]]:
            if not low <= others[k] < high:
                has_others = True
                continue
            other = _find_node(heads[others[k]], label, following, label_of)
            if other >= 0 and parent[other] != root and filled[other] & TOUCHING[26 - steps[k]]:
                joined = find_root(parent, other)
                root, joined = min(root, joined), max(root, joined)
                parent[joined] = root
    return has_others


@cached_njit(nogil=True)
def _number_components(labels, grid, heads, nodes, ends, number):
    """Joins nodes of different parts; turns the nodes in `number` into components.

    Returns:
        Label [C] of each component; component and block [K] of each node.
    """
    _, label_of, _, blocks, parent, border = nodes
    count, size, parts = 0, 0, len(ends)
    for part in range(parts):
        size += ends[part, 0] - len(labels) * part
        for node in border[len(labels) * part : ends[part, 1]]:
            _link_node(node, 0, len(heads), grid, heads, nodes)
    component, block = np.empty(size, np.int64), np.empty(size, np.int64)
    label, of_node, k = np.empty(size, np.int16), border, 0
    for part in range(parts):
        for node in range(len(labels) * part, ends[part, 0]):  # a root comes before those that point to it
            root = find_root(parent, node)
            if root == node:
                of_node[node], label[count], count = count, label_of[node], count + 1
            else:
                of_node[node] = of_node[root]
            component[k], block[k] = of_node[node], blocks[node]
            k += 1
    for i in range(len(labels)):
        if labels[i]:
            number[i] = of_node[number[i]]
    return label[:count].copy(), component, block


@cached_njit(nogil=True)
def find_root(parent, i):
    """The root of node i; shortens the path to it."""
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
    for k in range(count):  # np.cumsum takes Numba a second to compile
        starts[k + 1] += starts[k]
    order, place = np.empty(len(number), np.int64), starts.copy()
    for i, n in enumerate(number):
        order[place[n]] = i
        place[n] += 1
    return order, starts
