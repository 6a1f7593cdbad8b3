"""Online, open-vocabulary 3D Gaussian maps for robots: posed frames in, text queries out.

Importing this package loads nothing heavy. The façade is :class:`ovs3d_ros.pipeline.Ovs3d`, the command
is ``ovs3d`` (:mod:`ovs3d_ros.cli`), and everything that touches ROS lives in :mod:`ovs3d_ros.ros`.
"""

__version__ = "0.1.0"
