"""A self-attention equilibrium cell."""

from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from revdeq.nn.arguments import validated_dtype
from revdeq.solver.parameters import validated_count, validated_number


class Transformer(nn.Module):
    """The cell f(z, x) = n2(h + mlp(h)), h = n1(u + attention(u)), u = z + U x: a transformer block.

    n1 and n2 are layer normalisations, attention is multi-head self-attention over the sequence, mlp has one hidden
    layer with GELU. U is the identity unless input_width is given.

    The args of a solve are x, or a pair (x, padding) for sequences of unequal length: padding is a bool tensor of shape
    (B, T), True for the tokens that are none. What x holds there does not matter: no token attends to them, and f is 0
    there, so that neither the other states nor the number of steps depend on how far a sequence is padded.

    Args:
        width: components of a token of z, an int >= 1 that heads divides.
        heads: attention heads, an int >= 1.
        input_width: components of a token of x, an int >= 1; None for `width`, without U.
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
        input_width: int | None = None,
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
        self.input_width = width if input_width is None else validated_count("input_width", input_width, example=64)
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
        self.input = (
            nn.Identity() if input_width is None else nn.Linear(self.input_width, width, device=device, dtype=dtype)
        )

    def extra_repr(self) -> str:
        """Return the sizes."""
        sizes = f"width={self.width}, heads={self.heads}, causal={self.causal}, dropout={self.dropout}"
        return sizes if self.input_width == self.width else f"{sizes}, input_width={self.input_width}"

    def start(self, args: torch.Tensor | tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the start state 0, shape (B, T, width), for x of shape (B, T, input_width), or a pair with it."""
        x, _ = _parted(args)
        return x.new_zeros(*x.shape[:-1], self.width)

    def forward(self, z: torch.Tensor, args: torch.Tensor | tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return f(z, x), shape (B, T, width).

        Args:
            z: the state, shape (B, T, width).
            args: x of shape (B, T, input_width), or the pair (x, padding).

        Raises:
            TypeError, ValueError: args is no such thing.
        """
        x, padding = _parted(args)
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0.0)  # an attention of 0 times NaN would be NaN
        u = z + self.input(x)
        h = self.norm1(u + self.drop(self._attention(u, padding)))
        value = self.norm2(h + self.drop(self.mlp(h)))
        return value if padding is None else value.masked_fill(padding[..., None], 0.0)

    def _attention(self, u: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
        batch, tokens, width = u.shape
        query, key, value = (
            self.query_key_value(u).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        seen = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if padding is None else self._seen(padding),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal and padding is None,
        )
        return self.mixed(seen.transpose(1, 2).reshape(batch, tokens, width))

    def _seen(self, padding: torch.Tensor) -> torch.Tensor:
        """Return which token sees which, a bool tensor (B, 1, T or 1, T) in which every token sees at least one."""
        tokens = ~padding[:, None, None, :]
        if not self.causal:
            return tokens | ~tokens.any(dim=-1, keepdim=True)
        earlier = torch.ones(padding.shape[1], padding.shape[1], dtype=torch.bool, device=padding.device).tril()
        # A token that is padding may have none before it but itself; one that attends to nothing would be NaN.
        return tokens & earlier | torch.eye(padding.shape[1], dtype=torch.bool, device=padding.device)


def _parted(args: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return x and the padding, which may be None.

    Raises:
        TypeError, ValueError: args is neither x nor a pair that fits.
    """
    if isinstance(args, torch.Tensor):
        return args, None
    if not (isinstance(args, tuple | list) and [isinstance(a, torch.Tensor) for a in args] == [True, True]):
        raise TypeError(f"args is a {type(args).__name__}; it must be the tensor x, or a pair (x, padding) of tensors.")
    x, padding = cast(tuple[torch.Tensor, torch.Tensor], args)
    if padding.dtype != torch.bool:
        raise TypeError(f"padding has {padding.dtype}; it must be a bool tensor, True for the tokens that are padding.")
    if padding.shape != x.shape[:-1]:
        raise ValueError(
            f"padding has shape {tuple(padding.shape)}; it must have one entry a token, {tuple(x.shape[:-1])}."
        )
    return x, padding
