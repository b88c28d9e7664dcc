"""Several processes, ranks, that train one network together, each on its part of every batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

Tree = TypeVar("Tree")


class RankLost(RuntimeError):
    """Another rank of this run is gone. Why, is for that one, or for who watches over all of them, to say."""


@dataclass(frozen=True)
class Ranks:
    """This process is `rank` of `count`. Only rank 0 writes; all of them measure and update the same."""

    rank: int = 0
    count: int = 1

    def device(self, kind: torch.device) -> torch.device:
        """The rank's own device of this kind."""
        several = self.count > 1 and kind.type == "cuda"
        return torch.device("cuda", self.rank) if several else kind

    @contextmanager
    def joined(self, rendezvous: str, device: torch.device) -> Iterator[None]:
        """Inside, the ranks can speak to each other; they have all come here. `rendezvous`: a path for a new file."""
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        store = dist.FileStore(rendezvous, self.count)
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.count)
        try:
            yield
        finally:
            dist.destroy_process_group()

    def total(self, found: Tree) -> Tree:
        """The sum over all ranks of what each has found, a tree of tensors; every rank gets the same bits."""
        if self.count == 1:
            return found
        leaves, structure = tree_flatten(found)
        for kind in dict.fromkeys((leaf.device, leaf.dtype) for leaf in leaves):
            alike = [i for i, leaf in enumerate(leaves) if (leaf.device, leaf.dtype) == kind]
            flat = torch.cat([leaves[i].detach().flatten() for i in alike])
            add_up(flat)
            for i, part in zip(alike, flat.split([leaves[i].numel() for i in alike]), strict=True):
                leaves[i] = part.view(leaves[i].shape)
        return tree_unflatten(leaves, structure)

    def of_first(self, found: Tensor) -> Tensor:
        """What rank 0 has found."""
        if self.count == 1:
            return found
        found = found.detach().clone()
        try:
            dist.broadcast(found, 0)
        except RuntimeError as error:
            raise RankLost(str(error)) from error
        return found

    @contextmanager
    def together(self, model: nn.Module, share: float, sums: list[Tensor]) -> Iterator[None]:
        """Around the forward and backward pass of a part of a batch, of a loss that is multiplied by the `share` of its
        samples. Afterwards gradients are those of the whole batch's loss, the numbers in `sums` are the sums over all
        ranks, and buffers have moved by the mean over the ranks: batch norm's running statistics, each rank having seen
        statistics of its own."""
        if self.count == 1:
            yield
            return
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        before = [buffer.clone() for buffer in buffers]
        yield
        weights = [p for p in model.parameters() if p.requires_grad]
        used = torch.tensor([p.grad is not None for p in weights], dtype=weights[0].dtype)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in weights]
        moves = [share * torch.where(b == old, 0, b - old) for b, old in zip(buffers, before, strict=True)]
        grads, moves, sums[:], used = self.total((grads, moves, sums, used.to(weights[0].device)))
        for number, (p, g) in enumerate(zip(weights, grads, strict=True)):
            if p.grad is None and not used[number]:  # nowhere: optimizers leave it alone
                continue
            p.grad = g if p.is_contiguous() else torch.empty_like(p).copy_(g)  # as autograd lays it out
        for buffer, old, move in zip(buffers, before, moves, strict=True):
            buffer.copy_(old + move)

    def check_same(self, tensors: Sequence[Tensor]) -> None:
        """Raises RuntimeError unless all ranks hold the same ones."""
        if self.count == 1:
            return
        mine = torch.stack([tensor.detach().double().sum() for tensor in tensors]).nan_to_num()
        if not torch.equal(mine, self.of_first(mine)):
            raise RuntimeError(
                f"the weights of rank {self.rank} should be those of rank 0 at the end, found others: does the "
                "optimizer draw random numbers, or the network depend on something that differs between processes?"
            )


ALONE = Ranks()


def add_up(tensor: Tensor) -> None:
    """In place, the sum over all ranks."""
    try:
        dist.all_reduce(tensor)
    except RuntimeError as error:
        raise RankLost(str(error)) from error
