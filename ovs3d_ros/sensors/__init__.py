"""What cameras and robots send, free of ROS: pixel formats, calibrations, poses, and what belongs together in time.

The node and the reader of bags share it. Messages are known by their field names only.
"""
