"""Two ranks under DDP, in float64: the subnets of one process with the joint batch, exactly."""

import os
import tempfile
from pathlib import Path

import torch
from torch import distributed, multiprocessing

from losia_cli.method import LoSiAConfig, attach
from tests.models import assert_same, batches, loss_of, tiny, weights

CONFIG = LoSiAConfig(rank_factor=0.25, output_factor=0.25, period=3)
STEPS = 12


def run(model, wrapped, data):
    controller = attach(model, CONFIG)
    wrapped = wrapped(model)
    optimizer = torch.optim.AdamW(controller.parameter_groups(), lr=1e-2)
    controller.drive(optimizer)
    # each rank has another memory; the smallest holds for all
    memory = 2**12 if distributed.is_initialized() and distributed.get_rank() else 2**40
    controller.score_first_subnets(data[:2], lambda ids: loss_of(model, ids), memory)
    controller.start(STEPS)
    for ids in data:
        loss_of(wrapped, ids).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {
        "weights": weights(model),
        "rows": {name: layer.rows for name, layer in controller.layers.items()},
    }


def worker(rank, folder):
    os.environ["OMP_NUM_THREADS"] = "1"
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    data = [ids[2 * rank : 2 * rank + 2] for ids in batches(STEPS, size=4)]
    result = run(tiny("gemma"), torch.nn.parallel.DistributedDataParallel, data)
    torch.save(result, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_choose_and_train_as_one_process():
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(worker, (folder,), nprocs=2)
        ranks = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(2)]
    alone = run(tiny("gemma"), lambda model: model, batches(STEPS, size=4))
    for rank in ranks:
        for name, rows in alone["rows"].items():
            assert torch.equal(rows, rank["rows"][name]), name
        assert_same(rank["weights"], alone["weights"])
