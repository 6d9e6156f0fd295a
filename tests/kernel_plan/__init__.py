"""Real sockets of this kernel under a load, beside what `fasttcp plan` predicts for the same load.

scenarios.py says which loads, drive.py runs them against the kernel, compare.py puts both answers side by side, and
`python -m kernel_plan.record` (in tests/) writes docs/plan-kernel.json, .md and .svg.
"""
