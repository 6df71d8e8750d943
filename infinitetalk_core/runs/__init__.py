"""Runs that survive: what is finished is on the disk, and the next run goes on from there."""
