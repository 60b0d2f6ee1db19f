"""MVEB in a plain PyTorch loop.

python pytorch_mveb.py
torchrun --nproc-per-node 2 pytorch_mveb.py    # two ranks, which compute what one does

Prints the alignment of each epoch, from 0.824 to 0.873, and at last:
    pixels 0.822, features 0.87
"""

import os

import torch
from digits import EPOCHS, Network, TwoViews, show_accuracy
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from infomax.methods.mveb import alignment, entropy_surrogate
from infomax.nn.batch_norm import synchronise_batch_norm
from infomax.nn.blocks import Teacher, l2_normalize

if "RANK" in os.environ:  # torchrun sets it
    distributed.init_process_group()
device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)  # all ranks start with the same weights
network = synchronise_batch_norm(Network(nn.Identity()).to(device), device)
teacher = Teacher(network.trunk, momentum=0.9)
student = DistributedDataParallel(network) if distributed.is_initialized() else network
optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
loader = TwoViews()
for epoch in range(EPOCHS):
    for step, views in enumerate(loader):
        views = [x.to(device) for x in views]
        z1, z2 = (l2_normalize(z) for z in student(*views))
        t1, t2 = (l2_normalize(teacher(x)) for x in views)
        aligned = (alignment(z1, t2) + alignment(z2, t1)) / 2
        loss = -aligned - 0.003 * (entropy_surrogate(z1) + entropy_surrogate(z2)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps_done = epoch * len(loader) + step + 1
        teacher.ema_update(network.trunk, progress=steps_done / (EPOCHS * len(loader)))
    if os.environ.get("RANK", "0") == "0":
        print(f"epoch {epoch}: alignment {aligned:.3f}")
if os.environ.get("RANK", "0") == "0":
    show_accuracy(network)
if distributed.is_initialized():
    distributed.destroy_process_group()
