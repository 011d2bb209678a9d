"""Pairs of texts that nobody labelled: documents become rows to train on, by rules."""
