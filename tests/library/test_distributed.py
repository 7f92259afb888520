"""DistributedDataParallel and fully_shard: two processes with half of the batch each give its whole
gradient."""

import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from functools import partial
from itertools import product

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from irevrnn import IRevRNN
from irevrnn.strategies.rules import STRATEGIES

WORKERS = 2
WRAPPERS = [DistributedDataParallel, fully_shard]


def make_model(memory):
    torch.manual_seed(0)
    return IRevRNN(
        3, 7, 2, activation="leaky_relu", norm="layer", dtype=torch.float64, memory=memory,
        memory_budget="1GB" if memory == "auto" else None,
    )  # fmt: skip


def make_batch():
    return torch.randn(4, 90, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(model, x):
    output, (h_n, c_n) = model(x)
    (output.square().mean() + h_n.square().mean() + c_n.sin().mean()).backward()
    return {name.removeprefix("module."): whole(p.grad) for name, p in model.named_parameters()}


def whole(gradient):
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


def work(folder, rank):
    """Results of one process, for every strategy."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group(
        "gloo", init_method=rendezvous, rank=rank, world_size=WORKERS, timeout=timedelta(minutes=2)
    )
    x = make_batch().chunk(WORKERS)[rank]
    results = {
        (wrap.__name__, memory): gradients(wrap(make_model(memory)), x)
        for wrap in WRAPPERS
        for memory in STRATEGIES
    }
    # The wrappers must go before the process group does. Otherwise the last of them takes it down
    # while it holds Python's lock, which a gloo thread may be waiting for: a deadlock of PyTorch's,
    # with any model (pytorch/pytorch#56297).
    gc.collect()
    dist.destroy_process_group()
    return results


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_the_whole_batch(kernels, tmp_path):
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=fresh) as pool:
        futures = [pool.submit(partial(work, tmp_path), rank) for rank in range(WORKERS)]
        results = [future.result(timeout=300) for future in futures]
    for memory in STRATEGIES:
        expected = gradients(make_model(memory), make_batch())
        for wrap, (name, wanted) in product(WRAPPERS, expected.items()):
            one, other = (result[wrap.__name__, memory][name] for result in results)
            assert torch.equal(one, other), (wrap, memory, name)
            torch.testing.assert_close(one, wanted, rtol=1e-11, atol=1e-13)
    # The control: half of the batch gives another gradient.
    half = gradients(make_model("recompute"), make_batch()[:2])
    assert not torch.allclose(
        half["layers.0.recurrent_weight"], expected["layers.0.recurrent_weight"], rtol=1e-3
    )
