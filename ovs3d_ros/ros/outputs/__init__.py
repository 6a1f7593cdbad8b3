"""Publications: the map, the last answer, diagnostics."""
