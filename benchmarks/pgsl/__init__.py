"""Measurements of proximal-gradient split learning: what its tables and figures show, and what it costs."""
