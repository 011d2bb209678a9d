"""Programs that run in the Python of a reader, which may be another one; they import nothing of this package."""
