"""Waiting for a training to have saved a state, before it is killed."""

import json
import time


def until_saved(out, process):
    """Until a state below the artifact is whole, or the process ended: its last file is there before all of it is."""
    while process.poll() is None and not any(map(_whole, out.glob("_training/checkpoint-*/trainer_state.json"))):
        time.sleep(0.01)


def _whole(file):
    try:
        return bool(json.loads(file.read_text()))
    except (OSError, ValueError):
        return False
