"""Tools of language agents: they ask a map file or a running node."""
