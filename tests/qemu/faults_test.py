#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The cells that the fault matrix marks as shown with QEMU are those of faults.py.

usage: faults_test.py PAGE
"""
import sys

from faults import Faults, promises

marked = {cell for cell, promise in promises(sys.argv[1]).items() if promise.shown}
shown = set(Faults.CELLS)
for cell in sorted(marked ^ shown):
    print(f"{' in '.join(cell)}: {'marked, and not in faults.py' if cell in marked else 'in faults.py, and not marked'}")
print(f"{len(shown)} cells")
sys.exit(marked != shown or not shown)
