"""What rounding does: its scale in another arithmetic, proved bounds, the validity envelope, a census of half steps."""
