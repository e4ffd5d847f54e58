"""What the machine that this runs on takes, measured; and what that says of the simulated one."""
