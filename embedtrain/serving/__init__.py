"""A model behind an address: requests come in, wait in one queue, and one thread computes them batch by batch.

The event loop reads, checks and answers; a thread tokenises; another one owns the models. Who asks for what is in
``routes``; the page in ``page``.
"""
