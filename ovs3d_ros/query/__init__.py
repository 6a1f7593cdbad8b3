"""Answers to text queries, from one snapshot of the map."""
