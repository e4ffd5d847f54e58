"""Demotion: a node that is short of memory gives cold pages to slower memory."""
