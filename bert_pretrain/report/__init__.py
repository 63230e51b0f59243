"""Folders of runs -> one HTML page."""
