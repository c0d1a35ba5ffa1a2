"""Targets: what a record holds beside its image, one file each."""
