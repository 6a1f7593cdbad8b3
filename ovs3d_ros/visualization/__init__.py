"""Turns renders and answers into pictures and point clouds."""
