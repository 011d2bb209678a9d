"""Hard negatives: candidates from several searches, without false negatives."""
