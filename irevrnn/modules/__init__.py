"""The modules: the layer and the cell, blocks, and the stack that runs them."""
