"""The words in which a language model is asked for queries; ``wordings.py`` holds them, ``build.py`` joins them."""
