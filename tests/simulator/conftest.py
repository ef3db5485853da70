import os
import sys

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    # Numba reads it once, at import: under the main test process it would replace the real CUDA target.
    collect_ignore_glob = ["*"]

# Blocks run as Python threads that wait for each other; a short switch interval keeps them moving.
sys.setswitchinterval(1e-4)
