"""MIRA in Lightning.

python lightning_mira.py
python lightning_mira.py 2    # two ranks, which compute what one does

Prints the loss of each epoch, from 4.45 to 1.85, and at last:
    pixels 0.822, features 0.89
"""

import logging
import sys
import warnings

import lightning
import torch
from digits import EPOCHS, Network, TwoViews, show_accuracy

from infomax.methods.mira import assign, swapped_prediction_loss
from infomax.nn.batch_norm import synchronise_batch_norm
from infomax.nn.blocks import Prototypes, Teacher


class MiraTraining(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = synchronise_batch_norm(Network(Prototypes(64, 100)), device)
        self.teacher = Teacher(self.network.trunk, momentum=0.9)

    def training_step(self, views, _):
        logits = self.network(*views)
        targets = [assign(self.network.head(self.teacher(x)), temperature=0.15) for x in views]
        loss = swapped_prediction_loss(logits, targets)
        self.log("loss", loss)
        return loss

    def on_train_batch_end(self, *_):
        progress = self.global_step / self.trainer.estimated_stepping_batches
        self.teacher.ema_update(self.network.trunk, progress=progress)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.network.parameters(), lr=3e-3)

    def on_train_epoch_end(self):
        self.print(f"epoch {self.current_epoch}: {self.trainer.callback_metrics['loss']:.3f}")


if __name__ == "__main__":
    logging.disable(logging.INFO)  # else Lightning says how it starts, and gives a tip
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 on torch 2.15
    off = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    torch.manual_seed(0)  # all ranks start with the same weights
    training = MiraTraining()
    trainer = lightning.Trainer(devices=int(sys.argv[1]) if sys.argv[1:] else 1, max_epochs=EPOCHS, **off)
    trainer.fit(training, TwoViews())
    if trainer.is_global_zero:
        show_accuracy(training.network)
