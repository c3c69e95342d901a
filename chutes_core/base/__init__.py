"""What every room may use: errors, units, ids, clock, logs, settings, the GPU table."""
