"""Probes: what a model can and cannot do, each a file, found by :func:`embedtrain.probes.discovery.probe_kinds`."""
