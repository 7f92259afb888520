"""The networks we compare with, as classifiers that train in the same loop: :data:`PEERS`."""

from experiments.peers.classifier import PEERS, PeerClassifier

__all__ = ["PEERS", "PeerClassifier"]
