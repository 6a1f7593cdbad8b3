"""Two maps become one: registration, fusion of doubled surfaces, and evidence that adds up."""
