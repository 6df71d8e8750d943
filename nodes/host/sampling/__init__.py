"""Runs a job: guider, backend, progress, fingerprints of the graph."""
