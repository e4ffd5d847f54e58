"""Where the pages of guest memory come from, for every monitor of a guest."""
