"""Scores against labels, and the calibration of the presence decision."""
