"""Models of earlier versions load, and give what they gave."""

from pathlib import Path

import pytest
import torch

from irevrnn import IRevRNN
from irevrnn.strategies.rules import IN_FIXED_POINT

pytestmark = pytest.mark.usefixtures("kernels")

#: Written by version 0.1: for each case the arguments of IRevRNN, state_dict, states and results.
#: Every sum in its matrix products is exact, so that no processor can round it differently.
FILE = torch.load(Path(__file__).parent / "data" / "v0_1.pt", weights_only=True)


@pytest.mark.parametrize("name", FILE["cases"])
def test_version_0_1_loads_and_gives_the_same_bits(name):
    case = FILE["cases"][name]
    model = IRevRNN(4, 6, **case["options"])
    assert list(model.state_dict()) == list(case["state_dict"])
    model.load_state_dict(case["state_dict"])
    output, (h_n, c_n) = model(FILE["x"], case["hidden"])
    # Version 0.2 rounds fixed-point numbers otherwise.
    near = 2e-4 if case["options"].get("memory") in IN_FIXED_POINT else 0
    for got, wanted in ((output, "output"), (h_n, "h_n"), (c_n, "c_n")):
        apart = (got - case[wanted]).abs().max()
        assert apart <= near * case[wanted].abs().max(), wanted


def test_control_another_last_bit_is_seen():
    case = FILE["cases"]["relu"]
    model = IRevRNN(4, 6, **case["options"])
    model.load_state_dict(case["state_dict"])
    with torch.no_grad():
        u = model.layers[0].recurrent_weight
        u[u.argmax()] = torch.nextafter(u.max(), u.new_zeros(()))
    assert not torch.equal(model(FILE["x"], case["hidden"])[0], case["output"])
