"""Bags: recording live, replaying through the same filter, figures, pictures. See commands.py."""
