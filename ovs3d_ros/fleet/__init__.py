"""Maps many datasets in parallel on Ray, and finds things in all maps at once (docs/fleet.md)."""
