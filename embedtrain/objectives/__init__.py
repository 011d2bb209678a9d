"""Training objectives: one file each, found by their class, no table to edit."""
