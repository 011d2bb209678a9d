"""Models as GGUF files, which llama.cpp and what is built upon it read (extra ``gguf``).

What such a file cannot say is refused here and not left to its readers. Start with ``export.py``; ``families.py`` says
how weights are named, ``tokens.py`` what becomes of the tokenizer.
"""
