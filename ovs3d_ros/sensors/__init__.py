"""Conversion of sensor data without ROS: pixel formats, calibrations, poses, and matching by stamp.

The ROS node and the bag reader share this package. It reads messages by field names, without message types.
"""
