"""adcli with accelerate made to shard on CPUs too: torch's fully_shard can over gloo, accelerate keeps it for GPUs.
Everything else is what runs on GPUs: wrapping, handing weights on, gathering, saving. The first process alone may read
a model's weights. Run by torchrun."""

import os

from stages.training.prepared import torch  # noqa: F401  before transformers

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from transformers import modeling_utils

from adcli.main import main
from stages.sage.config import SageTraining

plain = AcceleratorState.__init__


def sharding(self, *args, fsdp_plugin=None, **more):
    plain(self, *args, fsdp_plugin=fsdp_plugin, **more)
    if fsdp_plugin is not None:
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.fsdp_plugin = fsdp_plugin


def refused(file, **_):
    raise AssertionError(f"{file}: read by a process that gets its shards from the first one")


if __name__ == "__main__":
    if os.environ["RANK"] != "0":
        modeling_utils.safe_open = refused  # what opens weights there
    AcceleratorState.__init__ = sharding
    SageTraining.require_sharded = lambda *_: None  # which says that nothing would be
    main()
