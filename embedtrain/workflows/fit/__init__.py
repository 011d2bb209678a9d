"""From a folder of texts, or from pairs, to a model that is measured against its start, or refused.

``embedtrain fit`` composes an ordinary pipeline and runs it: ``wish.py`` is what the user asked for, ``look.py`` what
there is, ``plan.py`` what the time suffices for, ``compose.py`` the stages, ``run.py`` the whole, ``report.py`` the page.
"""
