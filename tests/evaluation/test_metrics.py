"""Metrics equal numbers computed by hand and by brute force."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ovs3d_ros.evaluation import metrics
from ovs3d_ros.types import UserError

RNG = np.random.default_rng(11)
CLASSES = ["", "wall", "mug"]
# unlabelled top left; 'wall' left, 'mug' right
TARGET = np.array([[0, 1, 2, 2], [1, 1, 2, 2]])
PRED = np.array([[2, 1, 2, 0], [1, 2, 2, 2]])


def test_psnr_of_known_images():
    target = np.zeros((4, 4, 3))
    assert metrics.psnr(target + 0.1, target) == pytest.approx(20.0)
    assert metrics.psnr(torch.full((4, 4, 3), 0.01), torch.zeros(4, 4, 3)) == pytest.approx(40.0, abs=1e-4)
    assert metrics.psnr(target, target) == float("inf")
    assert metrics.psnr(np.full((4, 4, 3), 255, np.uint8), np.ones((4, 4, 3))) == float("inf")


def test_psnr_aligned_removes_a_gain_per_channel_only():
    target = RNG.uniform(0.1, 0.5, (16, 16, 3))
    assert metrics.psnr_aligned(target / [0.5, 1.5, 2.0], target) > 200
    noisy = target + RNG.normal(0, 0.05, target.shape)
    best = max(metrics.psnr(np.clip(noisy * gain, 0, 1), target) for gain in np.linspace(0.8, 1.2, 401))
    assert metrics.psnr_aligned(noisy, target) >= best - 1e-9
    assert metrics.psnr_aligned(noisy, target) < best + 0.1
    offset = metrics.psnr_aligned(target + 0.3, target)
    assert offset < 30  # an offset is no gain


def test_psnr_aligned_clips_and_handles_black():
    target = np.ones((8, 8, 3))
    pred = np.full((8, 8, 3), 0.5)
    pred[0] = 1.0  # gain 1.8; clipping brings this row back to 1
    energy, product = 56 * 0.25 + 8, 56 * 0.5 + 8
    gain = product / energy
    expected = 10 * np.log10(64 / (56 * (1 - 0.5 * gain) ** 2))
    assert metrics.psnr_aligned(pred, target) == pytest.approx(expected)
    assert metrics.psnr_aligned(np.zeros((8, 8, 3)), target) == pytest.approx(0.0)


def test_ssim_equals_brute_force():
    x = RNG.uniform(size=(15, 14, 3))
    y = np.clip(x + RNG.normal(0, 0.1, x.shape), 0, 1)
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for row in range(5):
        for column in range(4):
            for channel in range(3):
                a, b = (image[row : row + 11, column : column + 11, channel] for image in (x, y))
                ma, mb = (window * a).sum(), (window * b).sum()
                va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
                cov = (window * (a - ma) * (b - mb)).sum()
                values.append(
                    (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
                )
    assert metrics.ssim(x, y) == pytest.approx(np.mean(values), abs=1e-10)
    assert metrics.ssim(x, x) == pytest.approx(1.0)
    constant = metrics.ssim(np.full((12, 12, 3), 0.25), np.full((12, 12, 3), 0.75))
    assert constant == pytest.approx((2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4))


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.psnr_aligned, metrics.ssim])
def test_image_metrics_refuse_unequal_images(measure):
    with pytest.raises(ValueError, match="equal"):
        measure(np.zeros((12, 12, 3)), np.zeros((12, 13, 3)))
    with pytest.raises(ValueError, match="int64"):
        measure(np.zeros((12, 12, 3), np.int64), np.zeros((12, 12, 3)))
    with pytest.raises(ValueError, match="11 x 11"):
        metrics.ssim(np.zeros((10, 12, 3)), np.zeros((10, 12, 3)))


def test_confusion_matrix_and_iou_of_known_labels():
    confusion = metrics.confusion_matrix(PRED, TARGET, 2)
    assert confusion.tolist() == [[0, 0, 1], [0, 2, 1], [1, 0, 3]]
    # wall: 2 hits, 3 in the target, 2 predicted; mug: 3 hits, 4 in the target, 4 predicted on labelled pixels
    np.testing.assert_allclose(metrics.iou_per_class(confusion), [2 / 3, 3 / 5])
    assert metrics.miou(confusion) == pytest.approx((2 / 3 + 3 / 5) / 2)


def test_iou_of_absent_classes():
    confusion = metrics.confusion_matrix(np.array([[1, 3]]), np.array([[1, 1]]), 3)
    np.testing.assert_allclose(metrics.iou_per_class(confusion), [0.5, np.nan, 0.0])
    assert metrics.miou(confusion) == pytest.approx(0.25)
    assert np.isnan(metrics.miou(metrics.confusion_matrix(TARGET * 0, TARGET * 0, 3)))


def test_confusion_matrix_refuses_labels_without_a_class():
    with pytest.raises(ValueError, match=r"0\.\.2"):
        metrics.confusion_matrix(np.array([[3]]), np.array([[1]]), 2)
    with pytest.raises(ValueError, match="shape"):
        metrics.confusion_matrix(np.zeros((2, 2)), np.zeros((2, 3)), 2)


def test_3dovs_protocol_counts_all_pixels():
    # over all pixels: wall 2 / 3; mug 3 hits, 4 in the target, 5 predicted (one on the unlabelled pixel)
    np.testing.assert_allclose(metrics.jaccard_per_class(PRED, TARGET, 2), [2 / 3, 3 / 6])
    perfect = np.where(TARGET == 0, 1, TARGET)
    score = metrics.score_segmentation("3dovs-a", [PRED, perfect], [TARGET, perfect], CLASSES)
    assert score.miou == pytest.approx(np.mean([2 / 3, 1 / 2, 1, 1]))
    assert score.accuracy == pytest.approx((5 / 8 + 1) / 2)
    assert score.per_class == pytest.approx({"wall": 5 / 6, "mug": 3 / 4})
    assert score.views == 2
    absent = metrics.score_segmentation("3dovs-a", [perfect], [perfect], [*CLASSES, "lamp"])
    assert absent.miou == pytest.approx(2 / 3)  # a class in neither map scores 0, as in the reference


def test_3dovs_protocol_equals_one_hot_brute_force():
    preds, targets = RNG.integers(1, 5, (3, 9, 7)), RNG.integers(0, 5, (3, 9, 7))
    ious, accuracies = [], []
    for pred, target in zip(preds, targets, strict=True):
        one_hot = [np.stack([labels.ravel() == c for c in range(1, 5)], axis=1) for labels in (pred, target)]
        accuracies.append((one_hot[0] == one_hot[1]).all(axis=1).mean())
        ious.append([(a & b).sum() / (a | b).sum() for a, b in zip(one_hot[0].T, one_hot[1].T, strict=True)])
    score = metrics.score_segmentation("3dovs-d", list(preds), list(targets), ["", "a", "b", "c", "d"])
    assert score.protocol == "3dovs-d"
    assert score.miou == pytest.approx(np.mean(ious)) and score.accuracy == pytest.approx(np.mean(accuracies))
    assert list(score.per_class.values()) == pytest.approx(np.mean(ious, axis=0))


def test_dataset_protocol_pools_the_views():
    score = metrics.score_segmentation("dataset", [PRED, TARGET], [TARGET, TARGET], CLASSES)
    assert score.per_class == pytest.approx({"wall": 5 / 6, "mug": 7 / 9})
    assert score.miou == pytest.approx((5 / 6 + 7 / 9) / 2)
    assert score.accuracy == pytest.approx(12 / 14)


def test_unnamed_classes_are_left_out_and_nan_becomes_null():
    labels = np.where(TARGET == 2, 3, TARGET)
    score = metrics.score_segmentation("dataset", [labels], [labels], ["", "wall", "", "mug", "lamp"])
    assert score.miou == 1.0 and list(score.per_class) == ["wall", "mug", "lamp"]
    values = json.loads(json.dumps(score.as_json(), allow_nan=False))
    assert values == {
        "protocol": "dataset",
        "miou": 1.0,
        "accuracy": 1.0,
        "views": 1,
        "per_class": {"wall": 1.0, "mug": 1.0, "lamp": None},
    }
    score = metrics.score_segmentation("3dovs-a", [labels], [labels], ["", "wall", "", "mug"])
    assert score.miou == 1.0


def test_unknown_protocol_and_missing_views_are_refused():
    with pytest.raises(UserError, match="protocol '3dovs-b' is unknown; choose one of 3dovs-a"):
        metrics.score_segmentation("3dovs-b", [PRED], [TARGET], CLASSES)
    with pytest.raises(UserError, match="no labelled views"):
        metrics.score_segmentation("dataset", [], [], CLASSES)
    with pytest.raises(ValueError, match="1 predictions for 2 targets"):
        metrics.score_segmentation("dataset", [PRED], [TARGET, TARGET], CLASSES)


def test_mean_over_scenes_leaves_out_room_in_protocol_c():
    def score(protocol, miou):
        return metrics.SegmentationScore(protocol, miou, miou / 2, {}, 5)

    scenes = {"bed": 0.9, "bench": 0.7, "room": 0.2}
    a = metrics.mean_over_scenes("3dovs-a", {name: score("3dovs-a", value) for name, value in scenes.items()})
    assert (a.miou, a.accuracy, a.views) == (pytest.approx(0.6), pytest.approx(0.3), 15)
    c = metrics.mean_over_scenes("3dovs-c", {name: score("3dovs-c", value) for name, value in scenes.items()})
    assert c.miou == pytest.approx(0.8) and set(c.per_class) == {"bed", "bench"}
    with pytest.raises(UserError, match="scored with 3dovs-a, not dataset"):
        metrics.mean_over_scenes("dataset", {"bed": score("3dovs-a", 0.5)})
    with pytest.raises(UserError, match="no scenes"):
        metrics.mean_over_scenes("3dovs-c", {"room": score("3dovs-c", 0.5)})


def test_auroc_equals_counting_pairs():
    scores = RNG.integers(0, 6, 60).astype(float)  # many ties
    present = RNG.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[present] for b in scores[~present]]
    assert metrics.auroc(scores, present) == pytest.approx(np.mean(pairs))
    assert metrics.auroc([1, 2, 3, 4], [0, 0, 1, 1]) == 1.0
    assert metrics.auroc([1, 1, 1, 1], [0, 0, 1, 1]) == 0.5


def test_fpr_at_tpr_equals_trying_every_threshold():
    scores = [0.9, 0.8, 0.7, 0.1, 0.85, 0.3, 0.2, 0.05]
    present = [1, 1, 1, 1, 0, 0, 0, 0]
    assert metrics.fpr_at_tpr(scores, present, 0.75) == pytest.approx(1 / 4)
    assert metrics.fpr_at_tpr(scores, present) == pytest.approx(3 / 4)
    scores, present = RNG.normal(size=200), RNG.random(200) < 0.5
    scores[present] += 1.0
    enough = [t for t in scores if (scores[present] >= t).mean() >= 0.95]
    assert metrics.fpr_at_tpr(scores, present) == pytest.approx((scores[~present] >= max(enough)).mean())


def test_ece_of_known_probabilities():
    # bins of width 0.5: [0.2, 0.4] hits 0 of 2 -> gap 0.3; [0.6, 1.0] hits 1 of 2 -> gap 0.3
    assert metrics.ece([0.2, 0.4, 0.6, 1.0], [0, 0, 1, 0], num_bins=2) == pytest.approx(0.3)
    assert metrics.ece([0.0, 1.0], [0, 1]) == 0.0
    assert metrics.ece([0.0, 1.0], [1, 0]) == 1.0
    probabilities = RNG.random(200_000)
    assert metrics.ece(probabilities, RNG.random(200_000) < probabilities) < 0.01


def test_presence_metrics_refuse_bad_input():
    for measure in (metrics.auroc, metrics.fpr_at_tpr):
        with pytest.raises(ValueError, match="both present and absent"):
            measure([0.1, 0.2], [1, 1])
        with pytest.raises(ValueError, match="finite"):
            measure([0.1, np.nan], [0, 1])
    with pytest.raises(ValueError, match="tpr"):
        metrics.fpr_at_tpr([0.1, 0.2], [0, 1], 0.0)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        metrics.ece([1.2], [1])
    with pytest.raises(ValueError, match="non-empty"):
        metrics.ece([], [])
