"""What the reproductions of training share: a resumable loop, the choice of the epoch, a line of results.

The validation split chooses the epoch; the test set is used once, at the end, with the weights of that epoch.

    python examples/python/reproduction.py build/reproductions/results.jsonl      # the results so far as a table
"""

import argparse
import copy
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import lowbit
from lowbit.torch import binary_steps, refresh_batch_norm

Augment = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits, labels and the augmented images


def training_arguments(parser: argparse.ArgumentParser, epochs: int, batch: int) -> None:
    """The options that every training has."""
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--to", type=Path, default=Path("build/reproductions"))


def begin(args: argparse.Namespace) -> None:
    """Seeds the generators and sets the threads."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)


def error_percent(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of wrong answers, in float32 and eval mode."""
    net.eval()
    with torch.inference_mode():
        wrong = sum((net(a).argmax(1) != b).sum().item() for a, b in zip(x.split(500), y.split(500), strict=True))
    return 100 * wrong / len(y)


class Run:
    """One training: net, optimiser, schedule, best weights so far; kept in one checkpoint file after every epoch."""

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        epochs: int,
        batch: int,
        checkpoint: Path,
    ):
        self.net, self.optimizer, self.schedule = net, optimizer, schedule
        self.epochs, self.batch, self.checkpoint = epochs, batch, checkpoint
        self.epoch, self.seconds, self.best_error, self.best_epoch = 0, 0.0, 101.0, 0
        self.best = copy.deepcopy(net.state_dict())
        if checkpoint.exists():
            self._load(torch.load(checkpoint, weights_only=True))

    def _parts(self) -> dict[str, nn.Module]:
        return {"net": self.net, "optimizer": self.optimizer, "schedule": self.schedule}

    def _load(self, state: dict) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
        self.best = state["best"]
        self.epoch, self.seconds, self.best_error, self.best_epoch = state["progress"]
        print(f"resumed after epoch {self.epoch}", flush=True)

    def _save(self) -> None:
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"rng": torch.get_rng_state(), "best": self.best}
        state["progress"] = (self.epoch, self.seconds, self.best_error, self.best_epoch)
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, self.checkpoint.with_suffix(".new"))
        self.checkpoint.with_suffix(".new").replace(self.checkpoint)

    def train(
        self,
        x: Tensor,
        y: Tensor,
        x_valid: Tensor,
        y_valid: Tensor,
        augment: Augment,
        loss_of: Loss,
        *,
        every: str = "epoch",
        bfloat16: bool = True,
        fresh_norms: bool = False,
        before_epoch: Callable[[int], None] = lambda epoch: None,
    ) -> None:
        """The remaining epochs.

        ``every``: the schedule steps after each "epoch" or "step". ``bfloat16``: products in bfloat16, weights and sums
        in float32. ``fresh_norms``: batch norm's statistics are taken anew for the test-time weights before each
        evaluation, for weights that differ from those in training. ``before_epoch`` hears 0, 1, ...
        """
        while self.epoch < self.epochs:
            started, losses = time.perf_counter(), []
            before_epoch(self.epoch)
            self.net.train()
            for rows in torch.randperm(len(x))[: len(x) // self.batch * self.batch].split(self.batch):
                images = augment(x[rows])
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    logits = self.net(images)
                loss = loss_of(logits.float(), y[rows], images)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                if every == "step":
                    self.schedule.step()
                losses.append(loss.item())
            if every == "epoch":
                self.schedule.step()
            running = copy.deepcopy(self.net.state_dict())
            if fresh_norms:  # training goes on with its own statistics
                refresh_batch_norm(self.net, x[:5000].split(500))
            error = error_percent(self.net, x_valid, y_valid)
            self.epoch += 1
            if error <= self.best_error:
                self.best, self.best_error = copy.deepcopy(self.net.state_dict()), error
                self.best_epoch = self.epoch
            self.net.load_state_dict(running)
            self.seconds += time.perf_counter() - started
            self._save()
            mean = sum(losses) / len(losses)
            print(
                f"epoch {self.epoch}/{self.epochs}: loss {mean:.4f}, validation error {error:.2f} % (best "
                f"{self.best_error:.2f} %, epoch {self.best_epoch}), {self.seconds:.0f} s",
                flush=True,
            )

    def finish(self, name: str, x_test: Tensor, y_test: Tensor, results: Path, **details: object) -> float:
        """The test error of the best epoch's weights, printed and added to the results, one JSON line per run."""
        self.net.load_state_dict(self.best)
        row = {
            "name": name,
            "test_error": round(error_percent(self.net, x_test, y_test), 2),
            "validation_error": round(self.best_error, 2),
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
            "minutes": round(self.seconds / 60, 1),
            "command": shlex.join(["python", *sys.argv]),
            "machine": f"{lowbit.cpu_name()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, "
            f"Python {platform.python_version()}",
            **details,
        }
        print(json.dumps(row, indent=1))
        results.parent.mkdir(parents=True, exist_ok=True)
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return row["test_error"]


def binary_run(net: nn.Module, epochs: int, batch: int, rates: tuple[float, float], checkpoint: Path) -> Run:
    """Adam with the binary papers' steps; each epoch its rate falls by a factor, from the first rate to the second."""
    optimizer = torch.optim.Adam(net.parameters(), lr=rates[0], fused=True)
    binary_steps(optimizer, net)
    decay = (rates[1] / rates[0]) ** (1 / max(epochs - 1, 1))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)
    return Run(net, optimizer, schedule, epochs, batch, checkpoint)


def table(results: Path) -> str:
    """The rows of a results file in Markdown, as docs/results.md has them."""
    lines = ["| run | test error | validation, epoch | minutes |", "|---|---|---|---|"]
    for row in map(json.loads, results.read_text().splitlines()):
        chosen = f"{row['validation_error']} %, {row['best_epoch']} of {row['epochs']}"
        lines.append(f"| {row['name']} | {row['test_error']} % | {chosen} | {row['minutes']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
