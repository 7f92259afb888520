"""The comparison is fair: peers compute the same thing, and the report is complete."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import tyro

from experiments.bench import stacks, suite
from experiments.bench.__main__ import main
from experiments.bench.recurrences import METHODS, Shape, make_problem, prepare_step
from experiments.bench.stacks import StackShape
from irevrnn.kernels import reference
from irevrnn.kernels.jit.compiler import BuildError
from irevrnn.kernels.ops import SEGMENT

SHAPE = Shape(20, 3, 8, 2)  # 20 steps: a whole chunk of 16 and a part of one
SAME_CELL = ("scan", "scan_store", "autograd", "checkpoint", "checkpoint_reentrant")
NOTHING = suite.Plan(
    shapes=[], stacks=[], floor=[], two_threads=[], flat=[], packed=[], repetitions=1
)
METHOD_KEYS = {"median_ms", "low_ms", "high_ms", "saved_bytes", "repetitions"}


def gradients(name: str) -> list[torch.Tensor]:
    """The output and all gradients of one step."""
    problem = make_problem(SHAPE)
    method = METHODS[name].build(problem)
    out, h_n, *_ = method.forward(problem.z)
    method.step(problem.z, torch.linspace(-1, 1, out.numel()).view_as(out))
    assert torch.equal(out[-1], h_n)
    return [out.detach(), *(leaf.grad for leaf in problem if leaf.grad is not None)]


def truth(couplings: int) -> list[torch.Tensor]:
    """The same by autograd of the reference in float64."""
    problem = make_problem(SHAPE)
    weights = (*problem[1:4], *(x[:couplings] for x in problem[4:]))
    wide = [x.detach().double().requires_grad_() for x in (problem.z, *weights)]
    out, _, _ = reference.scan(*wide)
    arriving = torch.linspace(-1, 1, out.numel()).view_as(out).double()
    grads = torch.autograd.grad(out, wide, arriving, allow_unused=True)
    return [out.detach(), *(g for g in grads if g is not None and g.numel())]


def check(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    torch.testing.assert_close([x.double() for x in found], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SAME_CELL)
def test_peers_compute_the_same_cell(name):
    check(gradients(name), truth(SHAPE.couplings))


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_compiled_chunks_compute_the_same_cell():
    check(gradients("compiled_chunks"), truth(SHAPE.couplings))


def test_indrnn_is_the_cell_without_couplings():
    check(gradients("indrnn"), truth(couplings=0)[:4])


@pytest.mark.parametrize("name", ["layer", "lstm", "gru"])
def test_modules_give_every_weight_a_gradient(name):
    problem = make_problem(SHAPE)
    method = METHODS[name].build(problem)
    grad_out = torch.ones(problem.z.shape)
    for _ in range(2):  # gradients are new each time
        method.step(problem.z, grad_out)
    once = [x.grad for x in (problem.z, *method.weights)]
    assert all(x is not None and x.isfinite().all() for x in once)
    method.step(problem.z, grad_out)
    for x, y in zip((problem.z, *method.weights), once, strict=True):
        torch.testing.assert_close(x.grad, y)


def test_a_timed_step_leaves_no_gradients_for_the_next_method_to_free():
    problem = make_problem(SHAPE)
    method = METHODS["lstm"].build(problem)
    seen = []
    problem.z.register_post_accumulate_grad_hook(lambda z: seen.append(z.grad))
    method.timed_step(problem.z, torch.ones(problem.z.shape))
    assert seen[0].abs().sum() > 0
    assert all(x.grad is None for x in (problem.z, *method.weights))


@pytest.mark.parametrize("shape", [Shape(1, 1, 1, 1), Shape(100, 2, 4, 3)])
def test_prepared_steps_run(shape):
    for name in METHODS.keys() - {"compiled_chunks"}:
        prepare_step(name, shape)()


@pytest.mark.usefixtures("kernels")
def test_the_command_writes_the_whole_report(tmp_path, capsys, monkeypatch):
    output = tmp_path / "new" / "bench.json"
    peers = [name for name in METHODS if name != "compiled_chunks"]
    plan = partial(
        suite.Plan, shapes=[Shape(33, 2, 8, 0)], more=[Shape(40, 2, 8, 3)], names=peers,
        stacks=[StackShape(50, 2, 3, 8, 2)],
        floor=[Shape(1000, 4, 64, 1)],
        two_threads=[Shape(40, 2, 16, 3)], flat=[20, 40], packed=[Shape(30, 4, 8, 2)],
        copied=1 << 16,
    )  # fmt: skip
    monkeypatch.setattr(suite, "Plan", plan)
    tyro.cli(main, args=["--repetitions", "3", "--output", str(output)])
    report = json.loads(output.read_text())
    assert report.keys() == {
        "environment", "backend", "threads", "repetitions", "shapes", "shapes_keeping_memory",
        "stacks", "stacks_as_it_comes", "gpu", "floor", "two_threads", "flatness",
        "packed",
    }  # fmt: skip
    assert (report["threads"], report["repetitions"]) == (1, 3)
    assert report["environment"]["threads"] == 1
    strongest = ["scan", "layer", "lstm", "indrnn"]
    for key in ("shapes", "shapes_keeping_memory"):
        shapes = [[entry[field] for field in Shape._fields] for entry in report[key]]
        assert shapes == [[33, 2, 8, 0], [40, 2, 8, 3]]
        for entry, names in zip(report[key], (peers, strongest), strict=True):
            assert list(entry["methods"]) == names
            for method in entry["methods"].values():
                assert method.keys() == METHOD_KEYS
                assert 0 < method["low_ms"] <= method["median_ms"] <= method["high_ms"]
                assert method["repetitions"] == 3
            expected = {*names, "lstm_to_layer"} - {"scan"}
            expected |= {"gru_to_layer"} & {f"{name}_to_layer" for name in names}
            assert entry["ratios"].keys() == entry["ratio_quartiles"].keys() == expected
            median = {name: method["median_ms"] for name, method in entry["methods"].items()}
            ratios = entry["ratios"]
            assert ratios["lstm"] == pytest.approx(median["lstm"] / median["scan"])
            assert ratios["lstm_to_layer"] == pytest.approx(median["lstm"] / median["layer"])
    saved = report["shapes"][1]["methods"]["scan"]["saved_bytes"]
    assert saved == (math.ceil(40 / SEGMENT) - 1) * 2 * 8 * 4

    (stack,) = report["stacks"]
    assert stack["methods"].keys() == stacks.NETWORKS.keys()
    (default,) = report["stacks_as_it_comes"]
    assert default["methods"].keys() == {"recompute", "reversible", "lstm"}
    assert default["ratios"]["lstm_to_reversible"] > 0
    assert stack["ratios"]["recompute"] == 1
    assert stack["ratios"]["lstm_to_reversible"] == pytest.approx(
        stack["methods"]["lstm"]["median_ms"] / stack["methods"]["reversible"]["median_ms"]
    )
    assert [[entry[x] for x in Shape._fields] for entry in report["floor"]] == [[1000, 4, 64, 1]]
    assert [entry["hidden"] for entry in report["two_threads"]] in ([16], [])
    assert [row["steps"] for row in report["flatness"]["lengths"]] == [20, 40]
    assert [entry["steps"] for entry in report["packed"]] == [30]

    printed = capsys.readouterr().out
    assert "T = 50, B = 2, in = 3, H = 8, L = 2" in printed
    assert "T = 40, B = 2, H = 8, R = 3" in printed
    assert "nn.LSTM over reversible: " in printed
    assert f"{report['floor'][0]['over_floor']:.2f}" in printed
    assert f"highest over lowest {report['flatness']['highest_to_lowest']:.2f}" in printed
    assert f"{report['packed'][0]['ratios']['same_steps']:.2f}" in printed
    if report["two_threads"]:
        assert f"{report['two_threads'][0]['busy']:.2f} times the time of one alone" in printed
    else:
        assert "two threads are not measured" in printed
    for name in peers:
        assert METHODS[name].label in printed
    assert str(output) in printed


def test_ours_are_measured_whatever_the_peers_and_threads_are_set_for_that_alone():
    before = torch.get_num_threads()
    report = suite.run(replace(NOTHING, shapes=[SHAPE], names=["gru"], threads=before + 1))
    assert list(report["shapes"][0]["methods"]) == ["scan", "layer", "gru"]
    assert report["threads"] == report["environment"]["threads"] == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.usefixtures("kernels")
def test_one_core_has_no_second_thread(monkeypatch):
    monkeypatch.setattr(suite.scans, "cores", lambda: [0])
    report = suite.run(replace(NOTHING, two_threads=[SHAPE]))
    nothing = {"floor": [], "two_threads": [], "flatness": None, "packed": []}
    assert nothing.items() <= report.items()


def test_without_a_compiler_the_compiled_peer_is_left_out(monkeypatch, capsys):
    def none_found():
        raise BuildError("there is no C++ compiler")

    monkeypatch.setattr(suite, "find_compiler", none_found)
    assert suite.that_can_run(["scan", "compiled_chunks", "lstm"]) == ["scan", "lstm"]
    assert "there is no C++ compiler" in capsys.readouterr().err
