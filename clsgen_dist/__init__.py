"""Calibrated probabilities and readable explanations from one fine-tuned language model."""

__version__ = "0.1.0"
