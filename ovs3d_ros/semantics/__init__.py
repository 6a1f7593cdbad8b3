"""Language features on Gaussians: the codec, the lift, scale selection and refinement."""
