"""NUMA balancing: accesses are noticed now and then, and pages go to who makes them, or to faster memory."""
