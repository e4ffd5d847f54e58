"""What a set of a TLB, page walk cache or data cache replaces: one file for each policy, all but exact LRU.

Exact LRU moves tags within their set (`vmsim.machine.sets`). With any other policy a tag stays in its way, and each way
has a word, its age, that means what the policy says. A policy is a number: its kind in the low bits, its parameters
above them; 0 is exact LRU. A way that is empty is filled before one is replaced.
"""

from vmsim.machine.replacement.duel import DUEL_NOTES, duels, insertion, note_miss, notes_of, side
from vmsim.machine.replacement.names import KIND_BITS, NAMES, Policy, Use, policy_of
from vmsim.machine.replacement.policies import ages_of, choose, use

__all__ = [
    "DUEL_NOTES",
    "KIND_BITS",
    "NAMES",
    "Policy",
    "Use",
    "ages_of",
    "choose",
    "duels",
    "insertion",
    "note_miss",
    "notes_of",
    "policy_of",
    "side",
    "use",
]
