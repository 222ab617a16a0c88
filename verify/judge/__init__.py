"""What the gate judges by: rows on their own, against the plan and one another, the run's own fields, the faults."""
