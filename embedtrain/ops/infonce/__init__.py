"""InfoNCE over any number of candidates, without the score matrix.

``reference.py`` is the definition; every other file computes the same numbers faster or in less memory. Start
with ``loss.py``, the public function.
"""
