"""Modules of PyTorch that several tests convert, and what they answer themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from modelserve.tensors import Array


def flat(answer: Any) -> list[Array]:
    """All tensors of an answer, however nested, as arrays."""
    if isinstance(answer, torch.Tensor):
        return [answer.numpy()]
    parts = answer.values() if isinstance(answer, dict) else answer
    return [array for part in parts if part is not None for array in flat(part)]


def expected(module: nn.Module, *args: Any, **kwargs: Any) -> list[Array]:
    """The module's own answer in eval mode; without the fast path, which answers otherwise where padding is."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    module.eval()
    with torch.no_grad():
        found = flat(module(*map(torch.from_numpy, args), **{k: torch.from_numpy(v) for k, v in kwargs.items()}))
    torch.backends.mha.set_fastpath_enabled(fast)
    return found


class Encoder(nn.Module):
    """Token and mask in, pooled answer and states out."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(50, 16), nn.Embedding(64, 16)
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))[None]
        states = self.layers(states, src_key_padding_mask=mask == 0)
        weights = mask.unsqueeze(-1).to(states.dtype)
        return self.head((states * weights).sum(1) / weights.sum(1)), states


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x * 2
        return x - 1


class Looping(nn.Module):
    """Its Python loop is as long as the example, unless it is scripted."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(x.shape[0], 4)
        for at in range(x.shape[1]):
            state = torch.tanh(self.cell(x[:, at]) + state)
        return state
