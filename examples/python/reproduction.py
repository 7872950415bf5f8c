"""What the reproductions of binary training share: a resumable loop, the choice of the epoch, a line of results.

The validation split chooses the epoch; the test set is used once, at the end, with the weights of that epoch. Batch
norm's statistics are taken anew for the test-time weights before each evaluation (lowbit.torch.refresh_batch_norm).

    python examples/python/reproduction.py build/reproductions/results.jsonl      # the results so far as a table
"""

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
from lowbit.torch import binary_steps, refresh_batch_norm, squared_hinge

Augment = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def error_percent(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of wrong answers, in float32 and eval mode."""
    net.eval()
    with torch.inference_mode():
        wrong = sum((net(a).argmax(1) != b).sum().item() for a, b in zip(x.split(500), y.split(500), strict=True))
    return 100 * wrong / len(y)


class Run:
    """One training: net, optimiser, schedule, best weights so far; kept in one checkpoint file after every epoch."""

    def __init__(self, net: nn.Module, epochs: int, batch: int, rates: tuple[float, float], checkpoint: Path):
        self.net, self.epochs, self.batch, self.checkpoint = net, epochs, batch, checkpoint
        self.optimizer = torch.optim.Adam(net.parameters(), lr=rates[0], fused=True)
        binary_steps(self.optimizer, net)
        decay = (rates[1] / rates[0]) ** (1 / max(epochs - 1, 1))
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, decay)
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
        self, x: Tensor, y: Tensor, x_valid: Tensor, y_valid: Tensor, augment: Augment, loss_of: Loss = squared_hinge
    ) -> None:
        """The remaining epochs: Adam, bfloat16 products with float32 weights and sums."""
        while self.epoch < self.epochs:
            started, losses = time.perf_counter(), []
            self.net.train()
            for rows in torch.randperm(len(x))[: len(x) // self.batch * self.batch].split(self.batch):
                with torch.autocast("cpu", torch.bfloat16):  # +-1 are exact in bfloat16
                    logits = self.net(augment(x[rows]))
                loss = loss_of(logits.float(), y[rows])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                losses.append(loss.item())
            self.schedule.step()
            running = copy.deepcopy(self.net.state_dict())  # training goes on with its own batch norm statistics
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


def table(results: Path) -> str:
    """The rows of a results file in Markdown, as docs/results.md has them."""
    lines = ["| run | test error | validation, epoch | minutes |", "|---|---|---|---|"]
    for row in map(json.loads, results.read_text().splitlines()):
        chosen = f"{row['validation_error']} %, {row['best_epoch']} of {row['epochs']}"
        lines.append(f"| {row['name']} | {row['test_error']} % | {chosen} | {row['minutes']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
