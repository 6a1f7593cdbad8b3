"""Encoders: crop pyramid, dense mode, DINO tokens, loading errors, and the bundled models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.config import ClipConfig, DinoConfig
from ovs3d_ros.encoders import make_clip, make_dino
from ovs3d_ros.encoders.clip import BUNDLED as CLIP_FOLDER
from ovs3d_ros.encoders.clip import ClipEncoder
from ovs3d_ros.encoders.crops import crop_starts
from ovs3d_ros.encoders.dense import average_directions, dense_features, supports_dense
from ovs3d_ros.encoders.dino import BUNDLED as DINO_FOLDER
from ovs3d_ros.encoders.dino import DinoEncoder
from ovs3d_ros.encoders.precision import resolve_precision
from ovs3d_ros.semantics.codec import CodecFitter
from ovs3d_ros.semantics.lift import pixel_codes
from ovs3d_ros.types import UserError

needs_clip = pytest.mark.skipif(not (CLIP_FOLDER / "model.safetensors").is_file(), reason="no bundled CLIP")
needs_dino = pytest.mark.skipif(not (DINO_FOLDER / "model.safetensors").is_file(), reason="no bundled DINO")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 40, axis=0), 40, axis=1)  # 240 x 320, coloured squares


@pytest.fixture(scope="module")
def vit():
    """The full-size architecture with random weights, for shapes and algebra only."""
    import open_clip

    torch.manual_seed(0)
    return open_clip.create_model("ViT-B-16").eval(), open_clip.get_tokenizer("ViT-B-16")


@pytest.fixture(scope="module")
def bundled_pyramid() -> ClipEncoder:
    return make_clip(ClipConfig(model="bundled", mode="pyramid"), "cpu")


@pytest.mark.parametrize(
    "length, side, stride", [(64, 64, 0.25), (65, 64, 0.25), (192, 64, 0.25), (341, 64, 0.3), (500, 64, 1.0)]
)
def test_crops_cover_the_whole_length_evenly(length, side, stride):
    starts = np.array(crop_starts(length, side, stride))
    assert starts[0] == 0 and starts[-1] == length - side
    steps = np.diff(starts)
    assert (
        (steps > 0).all() and (steps <= np.ceil(stride * side)).all() and np.ptp(steps) <= 1
        if len(steps)
        else True
    )


def test_vit_pyramid_has_one_row_per_crop(vit, image):
    model, tokenizer = vit
    encoder = ClipEncoder(
        model, tokenizer, "test", ClipConfig(mode="pyramid", crop_divisors=(1.0, 1.5)), "cpu"
    )
    table = encoder.encode_image(image)
    assert table.num_levels == 2 and encoder.dim == 512
    assert table.embeddings.shape == (len(table.boxes), 512) and set(table.levels.tolist()) == {0, 1}
    sides = (table.boxes[:, 2:] - table.boxes[:, :2]) * torch.tensor([320.0, 240.0])
    expected = 240 / torch.tensor([1.0, 1.5])[table.levels]
    assert torch.allclose(sides, expected[:, None].expand(-1, 2), atol=1.0)


def test_pyramid_crop_equals_the_crop_encoded_alone(vit, image):
    model, tokenizer = vit
    encoder = ClipEncoder(model, tokenizer, "test", ClipConfig(mode="pyramid", crop_divisors=(1.0,)), "cpu")
    last = encoder.encode_image(image).embeddings[-1]
    alone = encoder.encode_image(np.ascontiguousarray(image[:, 80:])).embeddings[0]
    assert F.cosine_similarity(last, alone, dim=0) > 0.999


def test_vit_dense_gives_a_cell_per_patch(vit, image):
    model, tokenizer = vit
    encoder = ClipEncoder(model, tokenizer, "test", ClipConfig(mode="dense", image_size=320), "cpu")
    table = encoder.encode_image(image)
    assert table.embeddings.shape == (15 * 20, 512) and table.num_levels == 1
    assert table.boxes[0].tolist() == pytest.approx([0, 0, 1 / 20, 1 / 15])
    assert table.boxes[-1].tolist() == pytest.approx([19 / 20, 14 / 15, 1, 1])


def test_vit_dense_features_are_local(vit):
    """A changed patch changes its own cell more than a distant one."""
    model, _ = vit
    torch.manual_seed(1)
    pixels = torch.randn(1, 3, 128, 128)
    changed = pixels.clone()
    changed[..., :32, :32] = torch.randn(3, 32, 32)
    with torch.inference_mode():
        before, after = (dense_features(model.visual, p, 128, 128) for p in (pixels, changed))
    moved = (F.normalize(before, dim=-1) - F.normalize(after, dim=-1)).norm(dim=-1)  # [8, 8]
    assert moved[:2, :2].mean() > 2 * moved[5:, 5:].mean()


@pytest.mark.parametrize("trunk", ["cs3darknet_focus_s", "regnetx_002", "convnext_atto"])
def test_dense_cells_of_a_conv_trunk_average_to_the_crop(trunk):
    """With a linear head the cells average to the pooled embedding; other heads keep its rough direction."""
    from open_clip.timm_model import TimmModel

    torch.manual_seed(0)
    visual = TimmModel(trunk, embed_dim=32, image_size=64).eval()
    assert supports_dense(visual)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        cells, pooled = dense_features(visual, pixels, 64, 64), visual(pixels)[0]
    assert cells.shape == (2, 2, 32)
    if trunk != "convnext_atto":
        assert torch.allclose(cells.mean(dim=(0, 1)), pooled, atol=1e-5)
    assert F.cosine_similarity(cells.mean(dim=(0, 1)), pooled, dim=0) > 0.7


def test_features_of_several_sizes_are_averaged_as_directions():
    left = torch.tensor([1.0, 0.0, 0.0]).expand(2, 4, 3)
    right = torch.tensor([[0.0, 5.0, 0.0], [0.0, 0.0, 5.0]]).expand(1, 2, 3)  # its length must not matter
    mean = average_directions([left, right])
    assert mean.shape == (2, 4, 3)
    torch.testing.assert_close(mean.norm(dim=-1), torch.ones(2, 4))
    torch.testing.assert_close(mean[:, 0], torch.tensor([0.5, 0.5, 0.0]).sqrt().expand(2, 3))
    torch.testing.assert_close(mean[:, -1], torch.tensor([0.5, 0.0, 0.5]).sqrt().expand(2, 3))


def test_dense_sizes_default_to_those_of_the_model(image):
    def grid(**settings) -> tuple[int, int]:
        return (
            make_clip(ClipConfig(model="bundled", mode="dense", **settings), "cpu").encode_image(image).grid
        )

    def table(*sizes: int) -> torch.Tensor:
        return (
            make_clip(ClipConfig(model="bundled", mode="dense", dense_sizes=sizes), "cpu")
            .encode_image(image)
            .embeddings
        )

    assert max(grid()) > 20 and max(grid(dense_sizes=(320,))) == 10
    both, small, large = table(320, 640), table(320), table(640)
    assert both.shape == large.shape and max(grid(dense_sizes=(640, 320))) == 20
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(both, large).mean() < 0.999 and cosine(both.mean(0), small.mean(0), dim=0) > 0.9


def test_tower_without_dense_mode_is_recognised(vit):
    from open_clip.timm_model import TimmModel

    visual = TimmModel("vit_tiny_patch16_224", embed_dim=32, pool="avg")
    assert not supports_dense(visual)


def test_vit_dino_tokens_of_the_last_block(image):
    import timm

    torch.manual_seed(0)
    model = timm.create_model(
        "vit_base_patch8_224.dino", pretrained=False, num_classes=0, dynamic_img_size=True
    ).eval()
    features = DinoEncoder(model, "test", DinoConfig(image_size=160), "cpu").encode_image(image)
    assert features.shape == (15, 20, 768) and features.dtype == torch.float32


@pytest.mark.parametrize(
    "options, remedy",
    [
        (dict(model="ViT-B-16", pretrained="openai"), "clip.model=bundled"),
        (dict(model="ViT-B-16", pretrained="no-such-tag"), "clip.pretrained="),
        (dict(model="ViT-B-16", pretrained=""), "clip.pretrained="),
        (dict(model="no-such-model"), "clip.model=bundled"),
        (dict(model="local-dir:/no/such/folder"), "check the path"),
        (dict(model="no.such.module:Encoder"), "pkg.module:Class"),
    ],
)
def test_missing_clip_weights_raise_an_error_with_a_remedy(options, remedy, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        make_clip(ClipConfig(**options), "cpu")
    assert remedy in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "model", ["vit_base_patch8_224.dino", "no_such_model", "local-dir:/no/such/folder", "resnet18"]
)
def test_missing_dino_weights_raise_an_error_with_a_remedy(model, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"dino\.model=bundled"):
        make_dino(DinoConfig(model=model), "cpu")


class OwnEncoder:
    """An encoder from an import string."""

    def __init__(self, config, device):
        self.name, self.dim, self.calibration = "own", 3, None


def test_import_string_brings_another_encoder():
    assert make_clip(ClipConfig(model=f"{__name__}:OwnEncoder"), "cpu").name == "own"
    assert make_dino(DinoConfig(model=f"{__name__}:OwnEncoder"), "cpu").name == "own"


@needs_clip
def test_bundled_clip_loads_and_is_deterministic(bundled_pyramid, image):
    first, second = (bundled_pyramid.encode_image(image) for _ in range(2))
    assert bundled_pyramid.name.startswith("bundled/") and first.num_levels == len(ClipConfig().crop_divisors)
    assert torch.equal(first.embeddings, second.embeddings) and torch.isfinite(first.embeddings).all()
    counts = torch.zeros(240, 320)
    for left, top, right, bottom in (
        (first.boxes * torch.tensor([320, 240, 320, 240])).round().long().tolist()
    ):
        counts[top:bottom, left:right] += 1
    assert counts.min() >= first.num_levels, "a pixel lies in no crop of some level"


@needs_clip
def test_bundled_auto_mode_is_its_calibrated_mode(image):
    encoder = make_clip(ClipConfig(model="bundled"), "cpu")
    assert encoder.mode == encoder.calibration["encoder"]["mode"]
    assert encoder.encode_image(image).embeddings.shape[1] == encoder.dim


@needs_clip
def test_dense_tables_hold_their_grid_and_are_interpolated(image):
    """The lift interpolates a table between cell centres only if the table has a grid."""
    table = make_clip(ClipConfig(model="bundled", mode="dense"), "cpu").encode_image(image)
    rows, columns = table.grid
    assert rows * columns == len(table.embeddings)
    assert torch.allclose(table.boxes[columns], torch.tensor([0, 1 / rows, 1 / columns, 2 / rows]), atol=1e-6)
    fitter = CodecFitter(table.embeddings.shape[1], 29)
    fitter.add(table.embeddings)
    codes = pixel_codes(table, fitter.fit(), 320, 240)[0]
    across = (codes[120, 1:] - codes[120, :-1]).norm(dim=-1)
    assert (across > 0).float().mean() > 0.9, "neighbouring pixels differ only at cell borders"


@needs_clip
def test_bundled_text_embeddings_group_synonyms(bundled_pyramid):
    texts = bundled_pyramid.encode_text(["a red mug", "red mug", "a blue sofa", "helicopter", "Zürich?!"])
    assert torch.allclose(texts.norm(dim=1), torch.ones(5), atol=1e-5)
    similarity = texts @ texts.T
    assert similarity[0, 1] > 0.9 > similarity[0, 2]
    assert torch.equal(bundled_pyramid.encode_text(["a red mug"])[0].sign(), texts[0].sign())


@needs_clip
def test_bundled_clip_names_plain_colours(bundled_pyramid):
    shades = {"red": (200, 20, 20), "green": (20, 150, 30), "blue": (20, 60, 200), "yellow": (230, 200, 20)}
    texts = bundled_pyramid.encode_text([f"something {name}" for name in shades])
    for index, colour in enumerate(shades.values()):
        patch = np.full((64, 64, 3), colour, np.uint8)
        assert int((bundled_pyramid.encode_image(patch).embeddings[0] @ texts.T).argmax()) == index


@needs_clip
def test_prompt_that_is_too_long_is_named(bundled_pyramid, caplog):
    bundled_pyramid.encode_text(
        ["an ordinary red mug", "🪑🪑🪑🪑🪑🪑", "sofa"]
    )  # each emoji takes some tokens
    (record,) = [r for r in caplog.records if "may be truncated" in r.getMessage()]
    assert "🪑" in record.getMessage()


@needs_clip
def test_bad_input_is_rejected(bundled_pyramid):
    with pytest.raises(UserError, match="uint8"):
        bundled_pyramid.encode_image(np.zeros((10, 10, 3), np.float32))
    with pytest.raises(UserError, match="uint8"):
        bundled_pyramid.encode_image(np.zeros((10, 10), np.uint8))
    for prompts in ([], [""], ["mug", "  "]):
        with pytest.raises(UserError, match="prompt"):
            bundled_pyramid.encode_text(prompts)


@needs_dino
def test_bundled_dino_groups_patches_of_one_surface(image):
    encoder = make_dino(DinoConfig(model="bundled"), "cpu")
    features = F.normalize(encoder.encode_image(image), dim=-1)  # [30, 40, D]; squares of 5 x 5 cells
    assert features.shape == (30, 40, encoder.dim)
    inside = (features[1::5, 1::5] * features[3::5, 3::5]).sum(dim=-1).mean()
    across = (features[1::5, 1:-5:5] * features[1::5, 6::5]).sum(dim=-1).mean()
    assert inside > across


def test_bundled_models_fit_the_package():
    size = sum(path.stat().st_size for folder in (CLIP_FOLDER, DINO_FOLDER) for path in folder.glob("*"))
    assert size <= 12 * 2**20


def encode(kind: str, precision: str, image: np.ndarray) -> torch.Tensor:
    """[M, D] float32 features by the bundled models."""
    if kind == "dino":
        return make_dino(DinoConfig(precision=precision), "cpu").encode_image(image).flatten(0, 1)
    config = ClipConfig(mode=kind, crop_divisors=(2.0,), crop_stride=1.0, precision=precision)
    return make_clip(config, "cpu").encode_image(image).embeddings


@needs_clip
@needs_dino
@pytest.mark.parametrize("kind", ["dense", "pyramid", "dino"])
def test_bfloat16_keeps_the_directions(kind, image):
    exact, reduced = (encode(kind, precision, image) for precision in ("float32", "bfloat16"))
    assert reduced.dtype == torch.float32 and not torch.equal(exact, reduced)
    assert F.cosine_similarity(exact, reduced, dim=-1).min() > 0.998


@needs_clip
@needs_dino
@pytest.mark.parametrize("kind", ["dense", "pyramid", "dino"])
@pytest.mark.parametrize("native, equal", [(True, "bfloat16"), (False, "float32")])
def test_auto_precision_follows_the_processor(kind, native, equal, image, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native}, raising=False)
    assert torch.equal(encode(kind, "auto", image), encode(kind, equal, image))


def test_old_torch_without_capabilities_uses_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_precision("auto", "cpu") == "float32"


def test_gpu_uses_float32_by_default(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert [resolve_precision(p, "cuda:0") for p in ("auto", "float32", "bfloat16")] == [
        "float32",
        "float32",
        "bfloat16",
    ]


def test_auto_uses_float32_for_crops_in_a_transformer(vit, image, monkeypatch):
    """In open_clip's transformer torch is many times slower on batches of crops with bfloat16 weights."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)

    def embeddings(mode: str, precision: str) -> torch.Tensor:
        config = ClipConfig(
            mode=mode, crop_divisors=(1.0,), crop_stride=1.0, image_size=320, precision=precision
        )
        return ClipEncoder(*vit, "test", config, "cpu").encode_image(image).embeddings

    assert torch.equal(embeddings("pyramid", "auto"), embeddings("pyramid", "float32"))
    assert torch.equal(embeddings("dense", "auto"), embeddings("dense", "bfloat16"))
