"""What the training data of the bundled CLIP promises: recoloured things, and pairs that are never shown."""

import colorsys
import sys
from pathlib import Path

import numpy as np
import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(TOOLS / "models"), str(TOOLS / "world"), *sys.path])


def _srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_recolour_repaints_the_thing_and_keeps_its_shading_and_grey_parts():
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


def test_every_named_colour_can_be_painted_over_every_other_but_black():
    import recolour
    from vocabulary import HSV_RANGES

    rng = np.random.default_rng(0)
    for source in [name for name in HSV_RANGES if name != "black"]:
        hue, saturation, value = (np.mean(limits) for limits in HSV_RANGES[source])
        for target in HSV_RANGES:
            image = np.full((8, 8, 3), np.round(255 * np.array(colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value))))
            image = image.astype(np.uint8)
            wanted = recolour.sample(target, rng)
            recolour.recolour(image, np.ones((8, 8), np.uint8), 1, source, wanted)
            assert np.abs(image[0, 0] / 255 - _srgb(wanted)).max() < 0.03, (source, target)


def test_a_held_out_pair_is_neither_painted_nor_named():
    import captions
    import recolour
    from vocabulary import HELD_OUT_PAIRS, HSV_RANGES

    rng = np.random.default_rng(0)
    for colour, noun in HELD_OUT_PAIRS:
        assert captions.COLOURS.index(colour) not in recolour.allowed(noun)
        (low, high), (pale, full), (dark, light) = HSV_RANGES[colour]
        for _ in range(200):
            hue, saturation, value = colorsys.rgb_to_hsv(*_srgb(recolour.between(noun, rng)))
            assert not ((hue * 360 - low) % 360 <= high - low and pale <= saturation <= full and dark <= value <= light)


def test_a_colour_without_a_name_is_never_in_a_caption():
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
    drawn = [captions.Caption(text, (claim,)) for text, claim in (
        ("mug", captions.Claim(nouns=(noun("mug"),))), ("red", captions.Claim(colours=(colour("red"),))),
        ("plate", captions.Claim(nouns=(noun("plate"),))), ("blue", captions.Claim(colours=(colour("blue"),))))]
    shares = np.eye(2)
    truth = captions.targets(drawn, things, shares)
    asked = captions.denials(drawn, truth, *captions.open_questions(things, shares))
    assert asked.tolist() == [[False, True, True, True], [True, False, True, True]]


def test_left_out_classes_get_no_gradient():
    import pretrain
    import torch

    logits = torch.zeros(2, 3, requires_grad=True)
    candidates = torch.tensor([[True, True, False], [True, True, True]])
    pretrain.naming_loss(logits, torch.tensor([0, 3]), candidates).backward()
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]
    assert logits.grad[0, 2] == 0
    assert (logits.grad[1] == 0).all()
