"""Encoders: token ids in, embeddings out."""
