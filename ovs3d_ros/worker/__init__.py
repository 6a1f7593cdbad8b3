"""The mapping thread: it alone changes the map, so that ROS callbacks and queries never wait for training."""

from ovs3d_ros.worker.mapping_worker import MappingWorker
from ovs3d_ros.worker.refiner import MapRefiner

__all__ = ["MapRefiner", "MappingWorker"]
