"""MaxSim and XTR: the scores of late interaction, without the matrix of all token similarities.

``reference.py`` is the definition. Start with ``scores.py``, the public function.
"""
