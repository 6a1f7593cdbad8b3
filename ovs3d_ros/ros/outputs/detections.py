"""Messages of vision_msgs, which may not be installed."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

from ovs3d_ros.ros.conversions import Header, PoseWithCovariance, to_box
from ovs3d_ros.types import SemanticObject


def vision_messages() -> ModuleType | None:
    """The message module of vision_msgs, None if it is not installed."""
    try:
        from vision_msgs import msg
    except ImportError:
        return None
    return msg


def to_detections(objects: list[SemanticObject], ids: list[int], header: Header) -> Any:
    """Objects as a vision_msgs/Detection3DArray: boxes in metres, class_id is the prompt, score 0..1.

    The ids are those that objects keep from answer to answer; without any, they are left empty.
    """
    vision, detections = vision_messages(), []
    assert vision is not None, "vision_msgs is not installed"
    for item, number in itertools.zip_longest(objects, ids, fillvalue=""):
        pose, size = to_box(item.center, item.quat, item.size)
        hypothesis = vision.ObjectHypothesis(class_id=item.prompt, score=float(item.score))
        result = vision.ObjectHypothesisWithPose(hypothesis=hypothesis, pose=PoseWithCovariance(pose=pose))
        detections.append(
            vision.Detection3D(
                header=header,
                id=str(number),
                results=[result],
                bbox=vision.BoundingBox3D(center=pose, size=size),
            )
        )
    return vision.Detection3DArray(header=header, detections=detections)


def to_label_info(prompts: list[str], header: Header) -> Any:
    """The prompt of each label number as vision_msgs/LabelInfo; 0 (no label) is left out."""
    vision = vision_messages()
    assert vision is not None, "vision_msgs is not installed"
    classes = [vision.VisionClass(class_id=i, class_name=prompt) for i, prompt in enumerate(prompts, start=1)]
    return vision.LabelInfo(header=header, class_map=classes)
