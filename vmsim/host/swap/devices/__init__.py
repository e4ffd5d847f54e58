"""Swap devices, one small file each; docs/reference/swap.md says where the figures are from."""
