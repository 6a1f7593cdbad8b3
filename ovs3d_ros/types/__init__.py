"""The values that travel between modules: cameras, frames, keyframes, snapshots, queries and their results.

Everything here is plain data. Functions elsewhere hold the maths; `semantic_map.SemanticMap` holds the state.
"""

from __future__ import annotations

from ovs3d_ros.types.images import Annotation, Camera, CropTable, Frame, Keyframe, KeyframeView, UserError
from ovs3d_ros.types.maps import MapFrame, MapSnapshot, RefinedField, RefineStep, TrainingState
from ovs3d_ros.types.queries import Query, QueryResult, Relation, SemanticObject

__all__ = [
    "Annotation",
    "Camera",
    "CropTable",
    "Frame",
    "Keyframe",
    "KeyframeView",
    "MapFrame",
    "MapSnapshot",
    "Query",
    "QueryResult",
    "RefineStep",
    "RefinedField",
    "Relation",
    "SemanticObject",
    "TrainingState",
    "UserError",
]
