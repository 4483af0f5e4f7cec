"""`python -m adcli`, also under torchrun: the folder that it is called in is not searched for modules, so that a
`stages.py` of somebody's own there does not stand for ours. (A folder `adcli` there would: `python -P -m adcli`.)"""

import sys
from pathlib import Path

if not sys.flags.safe_path and Path(sys.path[0]).resolve() != Path(__file__).resolve().parent.parent:
    sys.path.pop(0)

from adcli.main import main

main()
