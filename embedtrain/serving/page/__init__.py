"""The page at ``/``: two ways to search the same documents, side by side, for people who want to look."""
