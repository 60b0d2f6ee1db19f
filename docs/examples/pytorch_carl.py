"""CARL in a plain PyTorch loop.

python pytorch_carl.py
torchrun --nproc-per-node 2 pytorch_carl.py    # two ranks, which compute what one does

Prints the loss of each epoch, from 3.47 to 0.97, and at last:
    pixels 0.822, features 0.885
"""

import os

import torch
from digits import EPOCHS, Network, TwoViews, show_accuracy
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from infomax.methods.carl import consistency_loss, kl_weight, uniformity_loss
from infomax.nn.batch_norm import synchronise_batch_norm

if "RANK" in os.environ:  # torchrun sets it
    distributed.init_process_group()
device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)  # all ranks start with the same weights
network = synchronise_batch_norm(Network(nn.Linear(64, 50, bias=False)).to(device), device)
student = DistributedDataParallel(network) if distributed.is_initialized() else network
optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
loader = TwoViews()
for epoch in range(EPOCHS):
    for views in loader:
        logits = student(*(x.to(device) for x in views))
        uniformity = (uniformity_loss(logits[0]) + uniformity_loss(logits[1])) / 2
        weight = kl_weight(epoch, start=4.0, end=1.5, epochs=EPOCHS)
        loss = consistency_loss(*logits) + weight * uniformity
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if os.environ.get("RANK", "0") == "0":
        print(f"epoch {epoch}: {loss:.3f}")
if os.environ.get("RANK", "0") == "0":
    show_accuracy(network)
if distributed.is_initialized():
    distributed.destroy_process_group()
