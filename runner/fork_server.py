"""What the server that starts a sweep's processes imports: all that they need, once.

It leaves the sweep's process group first. Whoever stops the whole group (a terminal, `timeout`, a cluster) means the
sweep, which tells its jobs; without the server nobody would learn how they ended.
"""

import os

os.setpgrp()

import runner.job  # noqa: E402, F401
