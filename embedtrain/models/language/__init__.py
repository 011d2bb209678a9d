"""Causal language models that read: what they think of a text, without writing one."""
