"""A convolutional equilibrium cell."""

import torch
from torch import nn

from revdeq.nn.arguments import validated_dtype
from revdeq.solver.parameters import validated_count


class Conv(nn.Module):
    """The residual cell f(z, x) = n3(relu(z + n2(U x + c2(n1(relu(c1(z))))))) on images.

    c1 and c2 are convolutions that keep the size of the image, n1, n2, n3 group normalisations, which do not mix
    samples. x is an image of the size of z; U is the identity where it has as many channels, else a 1 x 1 convolution.

    Args:
        channels: channels of z, an int >= 1.
        inner_channels: channels between the convolutions, an int >= 1; None for `channels`.
        input_channels: channels of x, an int >= 1; None for `channels`, without U.
        kernel_size: odd int >= 1, in pixels.
        groups: groups of the normalisations, an int >= 1 that divides both numbers of channels.
        device: where the parameters live.
        dtype: their dtype, a real floating one.

    Raises:
        TypeError, ValueError: a size is not as said above.

    References:
        Bai, Koltun, Kolter, Multiscale deep equilibrium models, arXiv 2006.08656, figure 2 (the residual block).
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int | None = None,
        *,
        input_channels: int | None = None,
        kernel_size: int = 3,
        groups: int = 8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        validated_dtype(dtype)
        self.channels = validated_count("channels", channels, example=64)
        inner = channels if inner_channels is None else validated_count("inner_channels", inner_channels, example=64)
        self.inner_channels = inner
        self.input_channels = (
            channels if input_channels is None else validated_count("input_channels", input_channels, example=3)
        )
        self.kernel_size = validated_count("kernel_size", kernel_size, example=3)
        if kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size is {kernel_size}; it must be odd, such as 3, so that images keep their size."
            )
        self.groups = validated_count("groups", groups, example=8)
        if channels % groups or inner % groups:
            raise ValueError(
                f"groups is {groups}; it must divide channels = {channels} and inner_channels = {inner}, such as 1."
            )
        padding = kernel_size // 2
        self.conv1 = nn.Conv2d(channels, inner, kernel_size, padding=padding, bias=False, device=device, dtype=dtype)
        self.conv2 = nn.Conv2d(inner, channels, kernel_size, padding=padding, bias=False, device=device, dtype=dtype)
        with torch.no_grad():
            # Small weights: what z adds through the convolutions starts small beside the input.
            self.conv1.weight.normal_(std=0.01)
            self.conv2.weight.normal_(std=0.01)
        self.norm1 = nn.GroupNorm(groups, inner, device=device, dtype=dtype)
        self.norm2 = nn.GroupNorm(groups, channels, device=device, dtype=dtype)
        self.norm3 = nn.GroupNorm(groups, channels, device=device, dtype=dtype)
        self.input = (
            nn.Identity()
            if input_channels is None
            else nn.Conv2d(self.input_channels, channels, 1, device=device, dtype=dtype)
        )

    def extra_repr(self) -> str:
        """Return the sizes."""
        sizes = f"channels={self.channels}, inner_channels={self.inner_channels}, groups={self.groups}"
        return sizes if self.input_channels == self.channels else f"{sizes}, input_channels={self.input_channels}"

    def start(self, x: torch.Tensor) -> torch.Tensor:
        """Return the start state 0 for the input x of shape (B, input_channels, height, width)."""
        if self.input_channels == self.channels:
            return torch.zeros_like(x)  # in its memory format
        return x.new_zeros(x.shape[0], self.channels, *x.shape[2:])

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return f(z, x), shape (B, channels, height, width)."""
        inner = self.norm1(torch.relu(self.conv1(z)))
        return self.norm3(torch.relu(z + self.norm2(self.input(x) + self.conv2(inner))))
