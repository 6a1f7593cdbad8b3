"""The Blender-free part of the procedural world: held-out pairs and meshes, names, mesh primitives."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

WORLD = Path(__file__).resolve().parents[2] / "tools" / "world"


@pytest.fixture(scope="module")
def world():
    """The modules `vocabulary` and `shapes`, importable by plain name as the generator does."""
    sys.path.insert(0, str(WORLD))
    import shapes
    import vocabulary

    yield vocabulary, shapes
    sys.path.remove(str(WORLD))


def _volume(part) -> float:
    """Signed volume of a closed mesh by the divergence theorem; positive when faces turn outwards."""
    total = 0.0
    for face in part.faces:
        a = part.vertices[face[0]]
        for second, third in itertools.pairwise(face):
            total += a @ np.cross(part.vertices[second], part.vertices[third]) / 6
    return total


@pytest.mark.parametrize("split", ["train", "varied", "val"])
def test_train_and_val_never_draw_held_out_entries(world, split):
    vocabulary, _ = world
    rng = np.random.default_rng(0)
    for noun in vocabulary.NOUNS:
        for _ in range(200):
            assert (vocabulary.sample_colour(rng, noun, split), noun) not in vocabulary.HELD_OUT_PAIRS
            assert vocabulary.sample_variant(rng, noun, split) != vocabulary.HELD_OUT_VARIANTS.get(noun)


def test_test_split_draws_held_out_pairs_at_its_rate(world):
    vocabulary, _ = world
    rng = np.random.default_rng(0)
    held_out = vocabulary.HELD_OUT_PAIRS
    drawn = [(vocabulary.sample_colour(rng, "mug", "test"), "mug") in held_out for _ in range(2000)]
    assert np.mean(drawn) == pytest.approx(vocabulary.HELD_OUT_RATE, abs=0.04)
    variants = Counter(vocabulary.sample_variant(rng, "mug", "test") for _ in range(2000))
    assert set(variants) == {0, 1, 2, 3}


def test_only_varied_scenes_draw_the_varied_meshes(world):
    vocabulary, _ = world
    rng = np.random.default_rng(0)
    for noun, count in vocabulary.VARIED_ONLY_VARIANTS.items():
        own = vocabulary.NOUNS[noun].variants
        drawn = {
            split: {vocabulary.sample_variant(rng, noun, split) for _ in range(300)}
            for split in ("train", "varied", "test")
        }
        assert drawn["varied"] == drawn["train"] | set(range(own, own + count))
        assert max(drawn["train"] | drawn["test"]) < own


def test_varied_meshes_are_families(world):
    import meshes

    vocabulary, shapes = world
    for noun, count in vocabulary.VARIED_ONLY_VARIANTS.items():
        shapes_seen = set()
        for variant, seed in np.ndindex(count, 5):
            parts = meshes.build(noun, np.random.default_rng(seed), vocabulary.NOUNS[noun].variants + variant)
            low, high = shapes.bounds(parts)
            assert all(np.isfinite(part.vertices).all() for part in parts) and (high - low > 1e-3).all(), (
                noun,
                variant,
            )
            assert all(
                min(face) >= 0 and max(face) < len(part.vertices) for part in parts for face in part.faces
            )
            assert sum(len(part.faces) for part in parts) < 6000, (noun, variant)
            shapes_seen.add(tuple(np.round((high - low) / (high - low).max(), 3)))
        assert len(shapes_seen) > 3 * count, f"{noun}: draws look alike"


def test_held_out_entries_exist_and_leave_enough_to_learn(world):
    vocabulary, _ = world
    for colour, noun in vocabulary.HELD_OUT_PAIRS:
        assert colour in vocabulary.NOUNS[noun].colours
    for noun, variant in vocabulary.HELD_OUT_VARIANTS.items():
        assert variant < vocabulary.NOUNS[noun].variants
    per_colour = Counter(colour for colour, _ in vocabulary.HELD_OUT_PAIRS)
    assert set(per_colour) == set(vocabulary.COLOURS) and max(per_colour.values()) <= 4


def test_label_names_read_like_queries(world):
    vocabulary, _ = world
    assert vocabulary.label_name("mug", "red", "ceramic") == "red mug"
    assert vocabulary.label_name("table", "brown", "wood") == "wooden table"
    assert vocabulary.label_name("table", "blue", "wood") == "blue table"
    assert vocabulary.label_name("floor", "grey", "tile") == "floor"


def test_primitives_have_the_volume_of_the_solid(world):
    _, shapes = world
    sphere = shapes.ellipsoid(1.0, 2.0, 0.5, rings=40, segments=60)
    assert abs(_volume(sphere)) == pytest.approx(4 / 3 * np.pi, rel=0.02)
    cylinder = shapes.lathe([(0, 0), (1, 0), (1, 2), (0, 2)], 60)
    assert abs(_volume(cylinder)) == pytest.approx(2 * np.pi, rel=0.01)
    rod = shapes.tube([(0, 0, 0), (0, 0, 1), (0, 0, 2)], 0.5, 60)
    assert abs(_volume(rod)) == pytest.approx(np.pi / 2, rel=0.01)
    assert abs(_volume(shapes.box(1, 2, 3))) == pytest.approx(6)


def test_rotation_and_bounds(world):
    _, shapes = world
    turned = shapes.box(1, 2, 3).rotated("z", 90).at(x=1)
    low, high = shapes.bounds([turned])
    assert np.allclose(low, [0, -0.5, 0]) and np.allclose(high, [2, 0.5, 3])
