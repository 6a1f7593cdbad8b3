"""Publications of the node: the map, the answers to queries, and diagnostics."""
