"""Published measurements and what the simulator predicts for them."""
