"""Search settings for every method alike: ``python -m experiments.search mnist lstm lru``.

Every method gets the same number of random trials, and every trial about the same number of
parameters and the same processor time. Trials are judged on the validation data, by the weights at
the end of the schedule; a search never reads the test data. :mod:`.space` has what is searched,
:mod:`.trials` one trial and :mod:`.results` the result file.

Equal processor time measures the implementation, too. Ours is fused C++, which IndRNN, LinOSS,
minGRU, RG-LRU and S6 use as well; ``nn.LSTM`` and ``nn.GRU`` are kernels of PyTorch; LRU, coRNN and
the reversible GRU are loops in Python. So each trial records its steps.
"""
