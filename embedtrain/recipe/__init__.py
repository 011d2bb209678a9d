"""From YAML to checked values, and from a run's folder back to them.

Sections of a recipe are declared by their owners, in the layers below; this folder composes them and turns
mistakes into one line. Start with ``retrieval.py``.
"""
