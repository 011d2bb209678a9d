"""Train embedding models for dense and multi-vector retrieval."""
