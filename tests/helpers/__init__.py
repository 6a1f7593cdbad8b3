"""Scenes, encoders and ROS processes that several tests use."""
