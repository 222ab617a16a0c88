"""Studies: what a run measures for the report beside the cases that the gate judges."""
