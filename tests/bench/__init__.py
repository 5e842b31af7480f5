"""What the sidecar costs, beside what it may cost: `make bench`.

Problem: a sidecar is paid once per pod, and a number from a shared machine says little by itself. Promise: CPU time
instead of wall time wherever work is measured, the least of several runs, every speed beside something else that was
run in between (`yardsticks`), and every count checked: a bench that lost lines has measured nothing.
Refused: to judge. A timing never fails the run; only what is broken does.
"""
