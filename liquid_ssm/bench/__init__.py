"""How fast it is here: times, peak memory and accuracy, each next to a limit that the same run measured.

`run.bench()` measures, `liquid-ssm bench` prints it.
"""
