"""Timings of the solver beside its peers: information for readers, never part of the tests or the gate."""
