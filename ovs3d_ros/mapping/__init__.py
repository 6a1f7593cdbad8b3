"""The map of Gaussians, and its optimisation from posed images."""
