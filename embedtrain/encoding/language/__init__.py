"""Language models as scorers of pairs: what they are asked, and how an answer becomes a score.

Start with ``settings.py``; the door that opens them is ``pair_scorers.py`` of the folder above.
"""
