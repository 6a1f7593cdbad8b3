"""Training data of the bundled CLIP: recoloured objects, captions, crops, and pairs that are held out."""

import colorsys
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(TOOLS / "models"), str(TOOLS / "world"), *sys.path])


def _srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_recolour_keeps_shading_and_grey_parts():
    import recolour

    shading = np.linspace(0.3, 1.0, 32)[:, None, None] * np.ones((32, 48, 1))
    image = np.round(255 * _srgb(shading * recolour.sample("red", np.random.default_rng(0)))).astype(np.uint8)
    image[:, 16:32] = 128  # a steel handle
    image[:, 32:] = (200, 30, 30)  # another red thing
    instances = np.ones((32, 48), np.uint8)
    instances[:, 32:] = 2
    painted = image.copy()
    recolour.recolour(painted, instances, 1, "red", recolour.sample("blue", np.random.default_rng(1)))
    hue = np.array([colorsys.rgb_to_hsv(*pixel)[0] * 360 for pixel in painted[:, 4] / 255])
    assert ((hue > 200) & (hue < 240)).all()
    assert (np.diff(painted[:, 4].sum(axis=-1).astype(int)) >= 0).all()
    assert (painted[:, 16:] == image[:, 16:]).all()


def test_recolour_paints_every_colour_over_all_but_black():
    import recolour
    from vocabulary import HSV_RANGES

    rng = np.random.default_rng(0)
    for source in [name for name in HSV_RANGES if name != "black"]:
        hue, saturation, value = (np.mean(limits) for limits in HSV_RANGES[source])
        for target in HSV_RANGES:
            image = np.full(
                (8, 8, 3), np.round(255 * np.array(colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value)))
            )
            image = image.astype(np.uint8)
            paint = recolour.sample(target, rng)
            recolour.recolour(image, np.ones((8, 8), np.uint8), 1, source, paint)
            assert np.abs(image[0, 0] / 255 - _srgb(paint)).max() < 0.03, (source, target)


def test_held_out_pairs_are_neither_painted_nor_named():
    import captions
    import recolour
    from vocabulary import HELD_OUT_PAIRS, HSV_RANGES

    rng = np.random.default_rng(0)
    for colour, noun in HELD_OUT_PAIRS:
        assert captions.COLOURS.index(colour) not in recolour.allowed(noun)
        (low, high), (pale, full), (dark, light) = HSV_RANGES[colour]
        for _ in range(200):
            hue, saturation, value = colorsys.rgb_to_hsv(*_srgb(recolour.between(noun, rng)))
            assert not (
                (hue * 360 - low) % 360 <= high - low
                and pale <= saturation <= full
                and dark <= value <= light
            )


def test_captions_never_name_a_colour_without_a_name():
    import captions

    rng = np.random.default_rng(0)
    thing = (captions.NOUNS.index("mug"), captions.UNNAMED, captions.MATERIALS.index("ceramic"))
    for _ in range(500):
        caption = captions.caption_of(thing, None, rng)
        assert not set(captions.COLOURS) & set(caption.text.split())
        things, shares = np.array([thing]), np.ones((1, 1))
        assert captions.targets([caption], things, shares)[0, 0] == 1
    red = captions.Caption("red", (captions.Claim(colours=(captions.COLOURS.index("red"),)),))
    assert captions.targets([red], things, shares)[0, 0] == 0


def test_training_never_denies_a_held_out_pair():
    import captions

    noun, colour = (lambda name: captions.NOUNS.index(name)), (lambda name: captions.COLOURS.index(name))
    ceramic = captions.MATERIALS.index("ceramic")
    things = np.array([(noun("bowl"), colour("red"), ceramic), (noun("mug"), colour("blue"), ceramic)])
    drawn = [
        captions.Caption(text, (claim,))
        for text, claim in (
            ("mug", captions.Claim(nouns=(noun("mug"),))),
            ("red", captions.Claim(colours=(colour("red"),))),
            ("plate", captions.Claim(nouns=(noun("plate"),))),
            ("blue", captions.Claim(colours=(colour("blue"),))),
        )
    ]
    shares = np.eye(2)
    truth = captions.targets(drawn, things, shares)
    scored = captions.scored_captions(drawn, truth, *captions.open_questions(things, shares))
    assert scored.tolist() == [[False, True, True, True], [True, False, True, True]]


def test_excluded_classes_get_no_gradient():
    import pretrain
    import torch

    logits = torch.zeros(2, 3, requires_grad=True)
    candidates = torch.tensor([[True, True, False], [True, True, True]])
    pretrain.naming_loss(logits, torch.tensor([0, 3]), candidates).backward()
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]
    assert logits.grad[0, 2] == 0
    assert (logits.grad[1] == 0).all()


@pytest.fixture
def store(tmp_path):
    """Three views of a wall with a red book left, a mug right of it, and a chair below."""
    import frames

    scene = tmp_path / "scene_00000"
    things = {
        "1": ("wall", "grey", "brick", (0, 0, 320, 240)),
        "2": ("book", "red", "paper", (40, 60, 120, 150)),
        "3": ("mug", "blue", "ceramic", (150, 70, 210, 140)),
        "4": ("chair", "green", "wood", (60, 170, 250, 235)),
    }
    (scene / "images").mkdir(parents=True)
    image, instances = np.zeros((240, 320, 3), np.uint8), np.zeros((240, 320), np.uint8)
    for key, (*_, (left, top, right, bottom)) in things.items():
        instances[top:bottom, left:right] = int(key)
        image[top:bottom, left:right] = 60 * int(key)
    cv2.imwrite(str(scene / "images/0.png"), image)
    cv2.imwrite(str(scene / "images/instances.png"), instances)
    (scene / "objects.json").write_text(
        json.dumps(
            {
                key: dict(noun=noun, colour=colour, material=material, mesh_variant=0)
                for key, (noun, colour, material, _) in things.items()
            }
        )
    )
    (scene / "transforms.json").write_text(
        json.dumps(
            dict(frames=[dict(file_path="images/0.png", instance_file_path="images/instances.png")] * 3)
        )
    )
    found = frames.FrameStore(tmp_path)
    assert found.refresh() == 3
    return found


def test_most_crops_show_a_single_object(store, monkeypatch):
    import crops

    def share_of_single_objects() -> float:
        rng = np.random.default_rng(0)
        shares = np.stack([crops.sample_crop(store, rng)[1] for _ in range(300)])
        assert np.allclose(shares.sum(axis=1), 1, atol=1e-5)
        return float((shares.max(axis=1) > crops.ALONE_SHARE).mean())

    share = share_of_single_objects()
    monkeypatch.setattr(crops, "ALONE", 0.0)
    assert share > share_of_single_objects() + 0.1


def test_bent_cut_bends_its_labels_too(store, monkeypatch):
    import crops

    monkeypatch.setattr(crops, "RECOLOURED", 0.0)
    view, square = store.views[0], (160.0, 120.0, 300.0, 220.0)

    def cut(bent: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        monkeypatch.setattr(crops, "BENT", bent)
        return crops.cut(store, view, square, 0.0, 96, np.random.default_rng(seed))

    brightness = {row: 60 * key for key in range(1, 5) for row in [view.things[key]]}
    agreement = []
    for seed in range(10):
        (flat, _), (image, ids) = cut(0.0, seed), cut(1.0, seed)
        assert (np.abs(image.astype(int) - flat) > 20).mean() > 0.03, "another shape"
        grey = image[2::4, 2::4, 0].astype(int)
        agreement.append((np.abs(grey - np.vectorize(brightness.get)(ids)) < 4).mean())
    assert np.mean(agreement) > 0.95, "all but pixels on borders"


def test_regions_of_windows_are_averages_over_whole_cells(store):
    import crops

    rng = np.random.default_rng(0)
    side = crops.WINDOW_CELLS
    for _ in range(20):
        image, regions, shares = crops.sample_window(store, rng)
        assert image.shape == (side * crops.CELL_PX,) * 2 + (3,) and regions.shape == (
            crops.REGIONS,
            side * side,
        )
        assert np.allclose(regions.sum(axis=1), 1, atol=1e-5) and np.allclose(
            shares.sum(axis=1), 1, atol=1e-5
        )
        for region in regions.reshape(-1, side, side) > 0:
            assert region[np.ix_(region.any(axis=1), region.any(axis=0))].all(), "a rectangle"


def test_regions_of_large_windows_are_things_and_single_cells(store, monkeypatch):
    import crops
    import dense_windows

    monkeypatch.setattr(crops, "RECOLOURED", 0.0)
    monkeypatch.setattr(crops, "BENT", 0.0)
    brightness = {row: 60 * key for key in range(1, 5) for row in [store.views[0].things[key]]}
    rng, side, errors = np.random.default_rng(0), dense_windows.CELLS, []
    for _ in range(30):
        image, regions, shares = dense_windows.sample_view(store, rng)
        assert image.shape == (320, 320, 3) and regions.shape == (len(shares), side * side)
        used = shares.any(axis=1)
        assert used.any() and np.allclose(shares[used].sum(axis=1), 1, atol=1e-5)
        assert np.allclose(regions.sum(axis=1), used, atol=1e-5), "spare rows are zero"
        single = regions[dense_windows.THINGS :]
        assert ((single > 0).sum(axis=1) == 1).all()
        things = np.flatnonzero(used[: dense_windows.THINGS])
        assert (shares[things].max(axis=1) == 1).all()
        means = image[..., 0].reshape(side, 32, side, 32).mean(axis=(1, 3)).ravel()
        sizes = (regions[things] > 0.5 * regions[things].max(axis=1, keepdims=True)).sum(axis=1)
        for row in things[sizes >= 20]:
            errors.append(abs(regions[row] @ means - brightness[shares[row].argmax()]))
    assert len(errors) > 20 and np.median(errors) < 12


def test_names_of_things(store):
    import captions
    import dense_windows

    things = store.things[store.views[0].things[1:5]]
    assert [dense_windows.NAMES[k] for k in dense_windows.names_of(things)] == [
        "grey wall",
        "red book",
        "blue mug",
        "green chair",
    ]
    unnamed = np.array([[captions.NOUNS.index("mug"), captions.UNNAMED, captions.MATERIALS.index("ceramic")]])
    red_mug = np.array([[captions.NOUNS.index("mug"), captions.COLOURS.index("red"), unnamed[0, 2]]])
    assert dense_windows.names_of(unnamed) == -1 and dense_windows.names_of(red_mug) == -1
    shares = np.zeros((2, len(dense_windows.NAMES)), np.float32)
    shares[0, dense_windows.NAMES.index("wooden table")] = 1.0
    shares[1, dense_windows.NAMES.index("brown table")] = 1.0
    left_open = dense_windows.open_names(shares)
    assert [dense_windows.NAMES[k] for k in np.flatnonzero(left_open[0])] == ["brown table"]
    assert not left_open[1].any()


def test_averaged_model_has_the_mean_weights(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    for number, name in enumerate(("first", "second"), start=1):
        (tmp_path / name).mkdir()
        (tmp_path / name / "open_clip_config.json").write_text("{}")
        save_file({"weight": torch.full((2, 3), float(number)).half()}, tmp_path / name / "model.safetensors")
    subprocess.run(
        [
            sys.executable,
            str(TOOLS / "models" / "average.py"),
            "--clip",
            str(tmp_path / "first"),
            str(tmp_path / "second"),
            "--out",
            str(tmp_path / "mean"),
        ],
        check=True,
    )
    weight = load_file(tmp_path / "mean" / "model.safetensors")["weight"]
    assert weight.dtype == torch.float16 and bool((weight == 1.5).all())
    assert (tmp_path / "mean" / "open_clip_config.json").is_file()
