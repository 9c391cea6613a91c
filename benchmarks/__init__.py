"""Measurements of deployed networks, side by side with their peers."""
