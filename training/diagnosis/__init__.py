"""Diagnosis of steps that are not finite."""
