"""A program on the host itself: no monitor between its kernel and the hardware."""
