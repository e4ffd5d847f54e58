"""Questions about a host and its VMs that simulation answers: a number, how sure it is, and the runs behind it.

One module for each question, with a function ``answer(asked)``; `vmsim.advice.questions` lists them.
"""
