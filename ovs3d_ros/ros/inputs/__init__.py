"""Subscriptions of the node: messages become frames."""
