"""Pictures and point clouds for people."""
