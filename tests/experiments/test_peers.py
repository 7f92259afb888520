"""The networks we compare with: each against its equations, step by step in float64."""

import math
from itertools import product

import pytest
import torch
from torch import nn

from experiments.peers.layers import GatedBlock
from experiments.peers.linoss import LinOSS
from experiments.peers.lru import LRU
from experiments.peers.rev_gru import FloatState, IntegerState, RevGRU
from experiments.peers.selective import RGLRU, S6, MinGRU
from experiments.tasks.mnist import MnistConfig
from experiments.train.loop import train
from experiments.train.model import make_optimizer
from experiments.train.networks import NETWORKS, Sizes
from experiments.train.run import Run
from irevrnn import IRevBlock, IRevStack, ThroughTime, scan
from irevrnn.modules.norm import LayerNorm
from irevrnn.strategies.strategy import Plan

T, B, FEATURES, H = 23, 3, 5, 7
PEERS = [name for name in NETWORKS if name not in ("irevrnn", "block")]
GATED = ["lru", "rglru", "s6", "linoss", "mingru"]
every_peer = pytest.mark.parametrize("kind", PEERS)


pytestmark = pytest.mark.usefixtures("digits")


def peer(kind, hidden_size=8, num_layers=2, read_at=None, **options):
    """A classifier of 3 features a step, with 4 classes."""
    network = NETWORKS[kind](hidden_size=hidden_size, num_layers=num_layers, **options)
    return network.build(Sizes(3, 4, read_at))


# --- the equations ------------------------------------------------------------------------------


def lru_steps(m, x):
    eigenvalues = torch.exp(-torch.exp(m.nu_log)) * torch.exp(1j * torch.exp(m.theta_log))
    b = m.input_matrix.weight[0::2] + 1j * m.input_matrix.weight[1::2]
    c = m.output_matrix.weight[:, 0::2] - 1j * m.output_matrix.weight[:, 1::2]
    h = torch.zeros(B, H, dtype=torch.complex128)
    for x_t in x:
        h = eigenvalues * h + torch.exp(m.gamma_log) * (x_t.to(b.dtype) @ b.T)
        yield (h @ c.T).real + m.skip * x_t


def linoss_steps(m, x):
    dt = 1 / (1 + torch.exp(-m.time_step))
    stiffness = torch.where(m.stiffness > 0, m.stiffness, 0.0)
    b = torch.complex(*m.input_matrix.weight.split(H))
    real, imaginary = m.output_matrix.weight.split(H, dim=1)
    c = torch.complex(real, -imaginary)
    y = z = torch.zeros(B, H, dtype=b.dtype)
    for x_t in x:
        z = z + dt * (-stiffness * y + x_t.to(b.dtype) @ b.T)
        y = y + dt * z
        yield (y @ c.T).real + m.skip * x_t


def mingru_steps(m, x):
    weight, bias = m.projection.weight, m.projection.bias
    h = torch.zeros(B, H, dtype=x.dtype)
    for x_t in x:
        z = 1 / (1 + torch.exp(-(x_t @ weight[:H].T + bias[:H])))
        candidate = x_t @ weight[H:].T
        h = (1 - z) * h + z * (candidate + bias[H:] if len(bias) > H else candidate)
        yield h


def rglru_steps(m, x):
    of_r, of_i, of_x = m.projection.weight.split(H)
    b_r, b_i = m.projection.bias.split(H)
    a = 1 / (1 + torch.exp(-m.decay_logit))
    h = torch.zeros(B, H, dtype=x.dtype)
    for x_t in x:
        r, i = (1 / (1 + torch.exp(-(x_t @ w.T + b))) for w, b in ((of_r, b_r), (of_i, b_i)))
        a_t = a ** (8 * r)
        h = a_t * h + torch.sqrt(1 - a_t**2) * (i * (x_t @ of_x.T))
        yield h


def s6_steps(m, x):
    of_step, of_x = m.projection.weight.split(H)
    h = torch.zeros(B, H, dtype=x.dtype)
    for x_t in x:
        step = torch.log(1 + torch.exp(x_t @ of_step.T + m.projection.bias))
        h = torch.exp(-step * torch.exp(m.rate_log)) * h + step * (x_t @ of_x.T)
        yield h


EQUATIONS = {
    "lru": (lambda: LRU(FEATURES, H), lru_steps),
    "linoss": (lambda: LinOSS(FEATURES, H), linoss_steps),
    "mingru": (lambda: MinGRU(FEATURES, H, longest_memory=10), mingru_steps),
    "mingru-sparse": (lambda: MinGRU(FEATURES, H, candidate_bias=False), mingru_steps),
    "rglru": (lambda: RGLRU(FEATURES, H), rglru_steps),
    "s6": (lambda: S6(FEATURES, H), s6_steps),
}


@pytest.mark.parametrize("name", EQUATIONS)
@pytest.mark.parametrize("steps", [1, 2, T])
def test_outputs_and_gradients_are_those_of_the_equations(name, steps):
    make, equations = EQUATIONS[name]
    module = make().double()
    for parameter in module.parameters():  # nothing is 0, or the same for all units
        parameter.data += 0.05 * torch.randn_like(parameter)
    x = torch.randn(steps, B, FEATURES, dtype=torch.float64, requires_grad=True)
    upstream, leaves = torch.randn(steps, B, 1, dtype=torch.float64), (x, *module.parameters())

    def results(output):
        return output, torch.autograd.grad((upstream * output.sin()).sum(), leaves)

    wanted, wanted_grads = results(torch.stack(list(equations(module, x))))
    whole, state = module(x)
    found, found_grads = results(whole)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(found_grads, wanted_grads)
    # A state cannot be seen before it has been handed on once.
    assert steps == 1 or all(grad.abs().max() > 1e-9 for grad in found_grads)
    if steps > 2:  # in pieces, with states handed on, as ThroughTime runs it
        first, between = module(x[:2])
        rest, last = module(x[2:], between)
        pieces, piece_grads = results(torch.cat([first, rest]))
        torch.testing.assert_close([pieces, *piece_grads], [whole, *found_grads])
        torch.testing.assert_close(last, state)
        throughout = ThroughTime(module)
        throughout._choose = lambda *_: Plan("checkpoint", 5)
        torch.testing.assert_close(results(throughout(x)[0])[1], found_grads)


def test_the_block_is_ours_around_another_recurrence():
    ours = IRevBlock(6, H, dropout=0.3).double()

    class Recurrence(nn.Module):
        def forward(self, x, state=None):
            z = ours.scale * ours.input_projection(x)
            state = state or 2 * [z.new_zeros(B, H)]
            weights = ours.recurrent_weight, ours.coupling_a, ours.coupling_b
            h, *after = scan(z, *state, *weights, "identity", "identity")
            return h, tuple(after)

    block = GatedBlock(6, Recurrence(), H, dropout=0.3).double()
    block.norm, block.output_projection = ours.norm, ours.output_projection
    x = torch.randn(T, B, 6, dtype=torch.float64)
    for training in (True, False):
        torch.manual_seed(1)
        wanted, _ = IRevStack([ours.train(training)], batch_first=False)(x)
        torch.manual_seed(1)
        found, _ = IRevStack([block.train(training)], batch_first=False)(x)
        torch.testing.assert_close(found, wanted)


# --- the start ----------------------------------------------------------------------------------


def uniform(values, lowest, highest):
    """Whether numbers are spread evenly between two ends."""
    ranks = torch.linspace(lowest, highest, len(values))
    furthest = (values.detach().sort().values - ranks).abs().max()
    return furthest < 1.95 * (highest - lowest) / math.sqrt(len(values))


@torch.no_grad()
def test_an_lru_starts_uniformly_on_its_ring():
    lru = LRU(2, 4000, shortest_memory=2.0, longest_memory=50.0, shortest_period=8.0)
    weights = lru.recurrent_weights
    square, phase = weights.abs().square(), weights.angle()
    assert not lru.gamma_log.isinf().any()
    lowest, highest = math.exp(-2 / 2), math.exp(-2 / 50)
    share = (square - lowest) / (highest - lowest)
    for values in (share, phase / (2 * math.pi / 8)):
        assert values.min() > -1e-5 and values.max() < 1 + 1e-5 and uniform(values, 0, 1)
    torch.testing.assert_close(lru.gamma_log.exp().square(), 1 - square, atol=1e-6, rtol=1e-4)
    assert lru.input_matrix.weight.std() == pytest.approx(math.sqrt(1 / 4), rel=0.05)
    assert lru.output_matrix.weight.std() == pytest.approx(math.sqrt(1 / 4000), rel=0.05)


def test_gamma_keeps_the_states_of_an_lru_small():
    lru = LRU(8, 300, shortest_memory=5.0, longest_memory=100.0)
    states = []
    lru.output_matrix.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0]))
    with torch.no_grad():
        lru(torch.randn(1500, 4, 8))
    # Normal inputs times B give complex numbers of mean square 1.
    squares = states[0][500:].unflatten(-1, (-1, 2)).square().sum(-1).mean((0, 1))
    assert squares.mean() == pytest.approx(1.0, abs=0.15) and squares.max() < 4


def test_an_rglru_starts_with_the_decays_of_the_paper():
    ends = 0.9, 0.999
    unit = RGLRU(6, 4000, *(-1 / math.log(end) for end in ends))
    assert uniform(torch.sigmoid(unit.decay_logit) ** 8, *ends)
    assert unit.projection.weight.detach().std() == pytest.approx(math.sqrt(1 / 6), rel=0.05)
    assert unit.projection.bias.eq(0).all() and len(unit.projection.bias) == 8000


def test_an_s6_starts_with_the_steps_of_mamba():
    unit = S6(6, 4000, shortest_memory=10.0, longest_memory=1000.0)
    steps = nn.functional.softplus(unit.projection.bias)
    assert uniform(steps.log(), math.log(0.001), math.log(0.1))
    assert unit.rate_log.eq(0).all()


@pytest.mark.parametrize("kind", [RGLRU, S6])
def test_gates_that_never_or_always_open_have_finite_gradients(kind):
    unit = kind(2, 3)
    for bias in (-200.0, 200.0):
        nn.init.constant_(unit.projection.bias, bias)
        unit.zero_grad()
        unit(torch.randn(9, 2, 2))[0].sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in unit.parameters())


def forget_biases(rnn, layer):
    return getattr(rnn, f"bias_ih_l{layer}") + getattr(rnn, f"bias_hh_l{layer}")


@pytest.mark.parametrize("options", [{}, {"forget_bias": 2.5}], ids=str)
def test_the_forget_bias_is_1_or_an_option(options):
    lstm, wanted = peer("lstm", 4, **options).rnn, options.get("forget_bias", 1)
    for layer in range(2):
        bias = forget_biases(lstm, layer)
        assert bias[4:8].eq(wanted).all() and not bias[:4].eq(wanted).any()


def test_mingru_starts_with_memories_by_chrono():
    gate = MinGRU(3, 500, longest_memory=30.0).projection.bias[:500]
    assert gate.max() <= 0 and gate.min() >= -math.log(29) - 1e-6 and gate.exp().min() < 0.05


# --- the classifier -----------------------------------------------------------------------------


@every_peer
@pytest.mark.parametrize("read", ["last", "mean"])
def test_padding_changes_no_answer(kind, read):
    if read == "last" and kind == "resnet":
        pytest.skip("merges steps")
    model = peer(kind, read=read).eval()
    lengths = torch.tensor([9, 4, 1])
    x = torch.randn(3, 9, 3)
    together = model(x, lengths)
    alone = [model(x[i : i + 1, :steps]) for i, steps in enumerate(lengths)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("kind", [kind for kind in PEERS if kind != "resnet"])
def test_several_answers_are_those_after_so_many_steps(kind):
    several = peer(kind, read_at=(4, 9), read="last").eval()
    one = peer(kind, read="last").eval()
    one.load_state_dict(several.state_dict())
    x = torch.randn(3, 9, 3)
    torch.testing.assert_close(several(x), torch.stack([one(x[:, :4]), one(x)], dim=1))


NORMED = [
    *product(GATED, ["batch", "layer", None]),
    ("resnet", "batch"),
]


@pytest.mark.parametrize(("kind", "norm"), NORMED)
def test_padding_is_not_normalised_with(kind, norm):
    options = {"norm": norm or "none"} if kind != "resnet" else {}
    model = peer(kind, read="mean", **options)
    lengths, x = torch.tensor([9, 4, 1]), torch.randn(3, 9, 3)
    beyond = torch.arange(9) >= lengths[:, None]
    logits = [model(x.masked_fill(beyond[..., None], filling), lengths) for filling in (0.0, 1e3)]
    torch.testing.assert_close(*logits)
    kinds = {type(module) for module in model.modules()}
    norms = {"batch": nn.BatchNorm1d, "layer": LayerNorm}
    assert kinds & set(norms.values()) == ({norms[norm]} if norm else set())


@every_peer
def test_dropout_is_drawn_in_training_alone(kind):
    model = peer(kind, dropout=0.5, read="mean")
    x = torch.randn(2, 9, 3)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


# --- training -----------------------------------------------------------------------------------

SMALL = {
    "hidden_size": 12, "num_layers": 2, "downsample": 7, "batch_size": 32, "epochs": 6, "lr": 0.02,
    "read": "mean", "device": "cpu", "threads": 1,
}  # fmt: skip


@pytest.mark.parametrize("kind", [*GATED, "resnet"])
def test_the_loss_falls(kind, tmp_path):
    config = MnistConfig.of(model=kind, **SMALL, out=tmp_path)
    results = train(config, progress=False)
    losses = [row["train_loss"] for row in results["history"]]
    assert losses[-1] < 0.8 * losses[0] and results["test_accuracy"] > 0.2


@every_peer
@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_every_precision_trains(kind, precision, tmp_path):
    config = MnistConfig.of(
        model=kind, precision=precision, **SMALL | {"epochs": 1, "dropout": 0.1}, out=tmp_path
    )
    assert train(config, progress=False)["finished"]


def test_recurrent_weights_are_kept_in_range():
    fast = {"lr": 1.0, "recurrent_lr_scale": 1.0, "schedule": "cosine"}
    run = Run(MnistConfig.of(model="irevrnn", longest_memory=10.0, **SMALL | fast))
    named = [*run.network.named_parameters()]
    for x, y in run.task.train_batches(0, 0):
        run.step(x, y)
        weights = [u.abs().max() for name, u in named if name.endswith("recurrent_weight")]
        assert len(weights) == 2 and max(weights) <= 1


def test_recurrent_weights_are_learnt_slowly():
    for kind, names in {
        "lru": {"nu_log", "theta_log", "gamma_log"},
        "linoss": {"stiffness", "time_step"}, "rglru": {"decay_logit"}, "s6": {"rate_log"},
        "block": {"recurrent_weight", "coupling_a", "coupling_b"},
    }.items():  # fmt: skip
        config = MnistConfig.of(model=kind, recurrent_lr_scale=0.1, **SMALL | {"lr": 0.5})
        model = config.model.build(config.task(torch.device("cpu")))
        slow = {
            id(parameter)
            for group in make_optimizer(config, model).param_groups
            if group["lr"] == pytest.approx(0.05)
            for parameter in group["params"]
        }
        found = {n.rpartition(".")[2] for n, p in model.named_parameters() if id(p) in slow}
        assert found == names and len(slow) == 2 * len(names)


@pytest.mark.parametrize("kind", GATED)
def test_defaults_of_gated_blocks_go_with_gated_peers(kind):
    config = MnistConfig.of(model=kind)
    assert config.model.read == "mean"
    model = config.model.build(config.task(torch.device("cpu")))
    first, *others = [block.norm for block in model.rnn.blocks[1:]]
    assert isinstance(first, nn.Identity)
    assert len(others) == 3 and all(isinstance(norm, nn.LayerNorm) for norm in others)


def test_a_convolutional_network_is_read_by_its_mean():
    assert MnistConfig.of(model="resnet").model.read == "mean"
    with pytest.raises(ValueError, match="read must be mean with resnet, .*; got 'last'"):
        peer("resnet", read="last")


def test_a_convolutional_network_halves_the_steps():
    rnn = peer("resnet").rnn
    output, lengths = rnn(torch.randn(2, 9, 3), torch.tensor([9, 4]))
    assert output.shape == (2, 3, 8) and lengths.tolist() == [3, 1]
    assert output[1, 1:].eq(0).all() and output[1, 0].ne(0).any()


def test_options_reach_the_network():
    model = peer("lru", shortest_memory=3.0, longest_memory=4.0, shortest_period=100.0, width=6)
    weights = model.rnn.blocks[2].recurrence.recurrent_weights
    assert math.exp(-1 / 3) < weights.abs().min() < weights.abs().max() < math.exp(-1 / 4)
    assert weights.angle().max() < 2 * math.pi / 100 + 1e-6 and model.rnn.blocks[2].width == 6


# --- run back from the last state ---------------------------------------------------------------


def run_back(kind, steps):
    """States of a reversible GRU that has run forward and back again: zeros, if it was exact."""
    torch.manual_seed(0)
    model, x = RevGRU(FEATURES, 8, 2), torch.randn(steps, B, FEATURES)
    states = [kind(torch.zeros(B, 4)) for _ in model.halves]
    with torch.no_grad():
        for step in x:
            model.run(step, states)
        for step in x.flip(0):
            model.run_back(step, states)
    return torch.cat([state.value for state in states])


def test_a_reversible_gru_is_exact_in_integers_alone():
    assert run_back(IntegerState, 500).count_nonzero() == 0
    assert not run_back(FloatState, 500).abs().max() < 1e-3


def test_gradients_of_a_reversible_gru_are_those_at_the_states_it_visited():
    model, x = RevGRU(FEATURES, 8, 2), torch.randn(B, 60, FEATURES)
    visited, floats = (
        [kind(torch.zeros(B, 4)) for _ in model.halves] for kind in (IntegerState, FloatState)
    )
    for step in x.unbind(1):
        model.run(step, floats)
        with torch.no_grad():
            model.run(step, visited)
        for ours, exact in zip(floats, visited, strict=True):
            ours.value = ours.value + (exact.value - ours.value).detach()
    outputs = model(x), torch.cat([state.value for state in floats[-2:]], -1)
    got, wanted = (torch.autograd.grad(y.sum(), [*model.parameters()]) for y in outputs)
    assert torch.equal(*outputs)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
