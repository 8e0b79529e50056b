"""Probabilities that a language model states in words: asked for, read, and calibrated."""
