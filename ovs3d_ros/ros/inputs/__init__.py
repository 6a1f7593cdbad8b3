"""Subscriptions: what arrives becomes frames."""
