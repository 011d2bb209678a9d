"""Lightning around models and objectives."""
