"""The map of Gaussians and how posed images train it."""
