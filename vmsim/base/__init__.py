"""What every other room may use: units, errors, files, the clock, progress."""
