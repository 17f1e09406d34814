"""Frozen features, and what can be read from them: kNN, linear probe, intervals, signs of collapse."""
