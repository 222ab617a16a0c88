"""A self-attention equilibrium cell."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from revdeq.nn.arguments import validated_dtype
from revdeq.solver.parameters import validated_count, validated_number


class Transformer(nn.Module):
    """The cell f(z, x) = n2(h + mlp(h)), h = n1(u + attention(u)), u = z + x: a transformer block with injected input.

    n1 and n2 are layer normalisations, attention is multi-head self-attention over the sequence, mlp has one hidden
    layer with GELU. The input x has the shape of z.

    Args:
        width: components of a token, an int >= 1 that heads divides.
        heads: attention heads, an int >= 1.
        hidden: width of the hidden layer, an int >= 1; None for 4 * width.
        causal: whether a token sees itself and earlier tokens alone.
        dropout: probability of dropping an entry of the attention and of both branches, 0 <= dropout < 1. A solve draws
            one mask for all its evaluations.
        device: where the parameters live.
        dtype: their dtype, a real floating one.

    Raises:
        TypeError, ValueError: a size or probability is not as said above.

    References:
        Bai, Kolter, Koltun, Deep Equilibrium Models, arXiv 1909.01377, section 4 (the weight-tied transformer).
    """

    def __init__(
        self,
        width: int,
        heads: int = 1,
        *,
        hidden: int | None = None,
        causal: bool = False,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        validated_dtype(dtype)
        self.width = validated_count("width", width, example=64)
        self.heads = validated_count("heads", heads, example=4)
        if width % heads:
            raise ValueError(f"heads is {heads}; it must divide width = {width}, such as 1.")
        self.hidden = 4 * width if hidden is None else validated_count("hidden", hidden, example=256)
        if not isinstance(causal, bool):
            raise TypeError(f"causal is {causal!r}; it must be True or False.")
        self.causal = causal
        self.dropout = validated_number("dropout", dropout, least=0.0, below=1.0, example=0.1)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False, device=device, dtype=dtype)
        self.mixed = nn.Linear(width, width, device=device, dtype=dtype)
        self.norm1 = nn.LayerNorm(width, device=device, dtype=dtype)
        self.norm2 = nn.LayerNorm(width, device=device, dtype=dtype)
        self.mlp = nn.Sequential(
            nn.Linear(width, self.hidden, device=device, dtype=dtype),
            nn.GELU(),
            nn.Linear(self.hidden, width, device=device, dtype=dtype),
        )
        self.drop = nn.Dropout(self.dropout)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"width={self.width}, heads={self.heads}, causal={self.causal}, dropout={self.dropout}"

    def start(self, x: torch.Tensor) -> torch.Tensor:
        """Return the start state 0 for the input x of shape (B, T, width)."""
        return torch.zeros_like(x)

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return f(z, x), shape (B, T, width)."""
        u = z + x
        h = self.norm1(u + self.drop(self._attention(u)))
        return self.norm2(h + self.drop(self.mlp(h)))

    def _attention(self, u: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = u.shape
        query, key, value = (
            self.query_key_value(u).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        seen = scaled_dot_product_attention(
            query, key, value, dropout_p=self.dropout if self.training else 0.0, is_causal=self.causal
        )
        return self.mixed(seen.transpose(1, 2).reshape(batch, tokens, width))
