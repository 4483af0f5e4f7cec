"""Where the things of a state lie. A layout is the same under every capture condition."""

from random import Random

from stages.datasets.synth import holders, loose
from stages.datasets.synth.placed import Layout
from stages.datasets.synth.scenarios import State

LAYOUTS = {
    "sticks": loose.sticks,
    "fruits": loose.fruits,
    "tools": holders.tools,
    "cookies": holders.cookies,
    "tapes": loose.tapes,
    "stationery": holders.stationery,
    "ropes": loose.ropes,
    "blocks": holders.blocks,
    "dishes": loose.dishes,
    "balls": holders.balls,
}


def lay_out(state: State, rng: Random) -> Layout:
    """Random positions within what the rule leaves free."""
    return LAYOUTS[state.scenario](state, rng)
