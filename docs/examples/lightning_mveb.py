"""MVEB in Lightning.

python lightning_mveb.py
python lightning_mveb.py 2    # two ranks, which compute what one does

Prints the alignment of each epoch, from 0.824 to 0.873, and at last:
    pixels 0.822, features 0.87
"""

import logging
import sys
import warnings

import lightning
import torch
from digits import EPOCHS, Network, TwoViews, show_accuracy
from torch import nn

from infomax.methods.mveb import alignment, entropy_surrogate
from infomax.nn.batch_norm import synchronise_batch_norm
from infomax.nn.blocks import Teacher, l2_normalize


class MvebTraining(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = synchronise_batch_norm(Network(nn.Identity()), device)
        self.teacher = Teacher(self.network.trunk, momentum=0.9)

    def training_step(self, views, _):
        z1, z2 = (l2_normalize(z) for z in self.network(*views))
        t1, t2 = (l2_normalize(self.teacher(x)) for x in views)
        aligned = (alignment(z1, t2) + alignment(z2, t1)) / 2
        loss = -aligned - 0.003 * (entropy_surrogate(z1) + entropy_surrogate(z2)) / 2
        self.log("alignment", aligned)
        return loss

    def on_train_batch_end(self, *_):
        progress = self.global_step / self.trainer.estimated_stepping_batches
        self.teacher.ema_update(self.network.trunk, progress=progress)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.network.parameters(), lr=3e-3)

    def on_train_epoch_end(self):
        self.print(f"epoch {self.current_epoch}: alignment {self.trainer.callback_metrics['alignment']:.3f}")


if __name__ == "__main__":
    logging.disable(logging.INFO)  # else Lightning says how it starts, and gives a tip
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 on torch 2.15
    off = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    torch.manual_seed(0)  # all ranks start with the same weights
    training = MvebTraining()
    trainer = lightning.Trainer(devices=int(sys.argv[1]) if sys.argv[1:] else 1, max_epochs=EPOCHS, **off)
    trainer.fit(training, TwoViews())
    if trainer.is_global_zero:
        show_accuracy(training.network)
