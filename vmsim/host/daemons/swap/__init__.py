"""Reclaim by a host that is short of memory: kswapd, direct reclaim, and the killer where nothing helps."""
