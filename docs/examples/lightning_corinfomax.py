"""CorInfoMax in Lightning.

python lightning_corinfomax.py
python lightning_corinfomax.py 2    # two ranks, which compute what one does

Prints the loss of each epoch, from 13.7 to 10.7, and at last:
    pixels 0.822, features 0.89
"""

import logging
import sys
import warnings

import lightning
import torch
from digits import EPOCHS, Network, TwoViews, show_accuracy
from torch import nn

from infomax.methods.corinfomax import CorInfoMaxLoss
from infomax.nn.batch_norm import synchronise_batch_norm
from infomax.nn.blocks import l2_normalize


class CorInfoMaxTraining(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = synchronise_batch_norm(Network(nn.Identity()), device)
        self.criterion = CorInfoMaxLoss(64)  # its covariances are buffers, and so in the checkpoints

    def training_step(self, views, _):
        z1, z2 = (l2_normalize(z) for z in self.network(*views))
        loss = self.criterion(z1, z2)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.network.parameters(), lr=3e-3)

    def on_train_epoch_end(self):
        self.print(f"epoch {self.current_epoch}: {self.trainer.callback_metrics['loss']:.3f}")


if __name__ == "__main__":
    logging.disable(logging.INFO)  # else Lightning says how it starts, and gives a tip
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 on torch 2.15
    off = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    torch.manual_seed(0)  # all ranks start with the same weights
    training = CorInfoMaxTraining()
    trainer = lightning.Trainer(devices=int(sys.argv[1]) if sys.argv[1:] else 1, max_epochs=EPOCHS, **off)
    trainer.fit(training, TwoViews())
    if trainer.is_global_zero:
        show_accuracy(training.network)
