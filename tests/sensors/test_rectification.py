"""Which images count as rectified, and when their name and their calibration disagree."""

from __future__ import annotations

import pytest

from ovs3d_ros.sensors.calibration import CameraCalibration, describe_doubt, is_rectified

K = (130.0, 0.0, 80.0, 0.0, 130.0, 60.0, 0.0, 0.0, 1.0)
NO_P = (0.0,) * 12
D = (-0.2, 0.05, 0.0, 0.0, 0.0)


def projection(focal: float) -> tuple[float, ...]:
    return (focal, 0.0, 80.0, 0.0, 0.0, focal, 60.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    "topic, expected",
    [
        ("/camera/image_rect", True),
        ("/zed/zed_node/rgb/image_rect_color/compressed", True),
        ("/zed/zed_node/rgb/color/rect/image", True),
        ("/left/image_Rectified", True),
        ("/camera/image_raw", False),
        ("/direct_cam/image", False),
        ("/director/camera/image", False),
        ("/correctional/rectangle/image", False),
    ],
)
def test_rectified_is_a_part_of_the_topic_name(topic, expected):
    assert is_rectified("auto", topic) == expected
    assert is_rectified("rectified", topic) and not is_rectified("raw", topic)


@pytest.mark.parametrize(
    "P, coefficients, rectified, doubtful",
    [
        (NO_P, D, True, True),
        (projection(130.0), D, True, True),
        (projection(121.0), D, True, False),  # image_proc: rectified images beside the raw calibration
        (NO_P, (0.0,) * 5, True, False),
        (NO_P, (), True, False),
        (NO_P, D, False, False),
    ],
)
def test_distortion_of_rectified_images_is_doubtful(P, coefficients, rectified, doubtful):
    calibration = CameraCalibration(K, P, coefficients, "plumb_bob", (160, 120))
    assert ("input.rectification=raw" in describe_doubt(calibration, rectified, "/image")) == doubtful
