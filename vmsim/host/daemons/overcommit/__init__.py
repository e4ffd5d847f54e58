"""A daemon that says how much of a host's memory each VM has, by balloons, and where these do not help by swap."""
