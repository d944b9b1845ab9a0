"""Layers whose residual is more than one sum."""
