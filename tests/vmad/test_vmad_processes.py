"""What each process of a VMAD training draws for itself."""

import json

import pytest

from tests.processes import together
from tests.vmad_stages_world import command

WATCHED = """
import json, os, sys
from pathlib import Path
from stages.training.prepared import torch
from stages.vmad import memory, model
from adcli.main import run

drawn = {"boxes": [], "memory": [], "dropout": []}
boxes, draw, dropout = model.random_boxes, memory.Memory.draw, torch.nn.Dropout.forward

def kept(name, value):
    drawn[name].append(value.flatten().tolist())
    return value

def dropped(self, x):
    out = dropout(self, x)
    if self.training and self.p and x.shape[-1] > 1:
        kept("dropout", ((out == 0) & (x != 0)).flatten()[:4000].nonzero())
    return out

def from_memory(self, classes):
    found = draw(self, torch.zeros_like(classes))  # of one class, or the samples would decide
    kept("memory", found.features)
    return found

model.random_boxes = lambda sizes, *more: kept("boxes", boxes(torch.full_like(sizes, 40), *more))
memory.Memory.draw, torch.nn.Dropout.forward = from_memory, dropped
code = run(sys.argv[2:])
Path(sys.argv[1], os.environ.get("RANK", "0")).write_text(json.dumps({n: v[:8] for n, v in drawn.items()}))
sys.exit(code)
"""


@pytest.mark.slow
def test_each_process_draws_its_own_dropout_patches_and_memory(spots, models, tmp_path):
    script, options = tmp_path / "watched.py", {"dropout": 0.5, "memory": 1, "epochs": 0.5}
    script.write_text(WATCHED)
    code, said = together(2, 29635, tmp_path, *command(spots, models, tmp_path / "v", **options), program=(script,))
    assert code == 0 and said.count("1 of 1 rows") == 1, said
    first, second = (json.loads((tmp_path / str(rank)).read_text()) for rank in range(2))
    for name in ("boxes", "memory", "dropout"):
        assert len(first[name]) == len(second[name]) > 2, name
        assert all(a and a != b for a, b in zip(first[name], second[name], strict=True)), name
