"""No guest: a program on the host itself."""
