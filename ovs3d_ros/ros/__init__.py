"""The ROS 2 side: messages in, messages out. The only part of the package that imports ROS."""
