"""Classifiers on frozen image features from a few shots a class: seconds on a CPU.

`TipAdapter`, Renrui Zhang et al., 2207.09519: the shots correct zero-shot; -F trains them.
`GDA`, Zhengbo Wang et al., 2402.04087: Gaussians of one covariance, beside zero-shot.
`LPPlusPlus`, Yunshi Huang et al., 2404.02285: a linear probe with a learned weight of the text.

Each fits a `tpt.prompts.head.Head` to unit features and labels. What is left open (`alpha`, `beta`,
the epoch) is chosen on validation features if there are any. Some of the public programs choose it
on test pictures; this one never does.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.errors import MethodError
from tpt.prompts.head import Head

Pictures = tuple[Tensor, Tensor]
"""Unit features (n, E) and labels (n,)."""

BETA, ALPHA = 1.0, 1.17  # Tip-Adapter's start on ImageNet, where nothing is chosen
BETAS = [0.1 + 6.9 * step / 20 for step in range(20)]  # the range of the public search
ALPHAS = [0.1 + 2.9 * step / 20 for step in range(20)]
GDA_ALPHAS = [10.0**power for power in range(-4, 3)]


@dataclass(eq=False)
class _Fit:
    """The class features that a head is fitted to, and the check of its shots."""

    text: Tensor  # (K, E) unit class features

    def __post_init__(self) -> None:
        self.text = self.text.detach().float()

    def _check(self, features: Tensor, labels: Tensor) -> Tensor:
        """How many pictures each class has: (K,)."""
        count, width = self.text.shape
        if features.ndim != 2 or features.shape[1] != width or labels.shape != features.shape[:1]:
            raise MethodError(
                f"Shots have features {tuple(features.shape)} and labels {tuple(labels.shape)}; "
                f"expected (n, {width}) and (n,)."
            )
        each = torch.bincount(labels, minlength=count)
        if len(each) > count or not bool((each > 0).all()):
            raise MethodError(
                f"A head needs a picture of each of the {count} classes, but "
                f"{int((each[:count] > 0).sum())} have one."
            )
        return each


def accuracy(head: Head, pictures: Pictures) -> float:
    """The share of pictures that a head classifies correctly."""
    return float((head.logits(pictures[0]).argmax(-1) == pictures[1]).float().mean())


@dataclass(eq=False)
class TipAdapter(_Fit):
    """A cache of the shots: logits = scale f . t + alpha sum_i exp(-beta (1 - f . key_i)) 1[y_i].

    AdamW (eps 1e-4, decay 0.01) trains the keys, at a rate that falls to 0 by a cosine.
    """

    alpha: float | None = None  # weight of the cache; None: by validation pictures, else 1.17
    beta: float | None = None  # how fast a key's influence falls with its distance; likewise, 1
    epochs: int = 0  # of training the keys (Tip-Adapter-F, published 20); 0: they are the shots
    lr: float = 1e-3  # the first one
    batch: int = 256  # pictures a step
    scale: float = 100.0  # exp(logit_scale) of the model
    seed: int = 0  # of the order of the pictures

    def fit(
        self,
        features: Tensor,
        labels: Tensor,
        val: Pictures | None = None,
        passes: Tensor | None = None,
    ) -> Head:
        """Fit on unit features (n, E), labels (n,).

        Args:
            features, labels: the shots.
            val: pictures to choose alpha and beta on, after training, where they are open.
            passes: (R, n, E) unit features of augmented views: the keys are their means, made unit
                again, and epoch e trains on view e mod R. Default: the features themselves.

        Raises:
            MethodError: other shapes, a class without a picture, a diverged training.
        """
        self._check(features, labels)
        views = features.unsqueeze(0) if passes is None else passes
        keys = F.normalize(views.mean(0), dim=-1)
        alpha = ALPHA if self.alpha is None else self.alpha
        beta = BETA if self.beta is None else self.beta
        if self.epochs:
            keys = self._train(keys, views, labels, alpha, beta)
        head = self._make(keys, labels, alpha, beta)
        if val is not None and len(val[1]) and None in (self.alpha, self.beta):
            betas = BETAS if self.beta is None else [beta]
            alphas = ALPHAS if self.alpha is None else [alpha]
            grid = itertools.product(betas, alphas)
            others = [self._make(keys, labels, a, b) for b, a in grid]
            # The first of the best: the published start stands where nothing is better.
            head = max([head, *others], key=lambda one: accuracy(one, val))
        return head

    def _make(self, keys: Tensor, labels: Tensor, alpha: float, beta: float) -> Head:
        name = "tip-adapter-f" if self.epochs else "tip-adapter"
        zero = torch.zeros(len(self.text))
        return Head(name, self.text, self.scale * self.text, zero, keys, labels, alpha, beta)

    @torch.enable_grad()
    def _train(
        self, start: Tensor, views: Tensor, labels: Tensor, alpha: float, beta: float
    ) -> Tensor:
        """The keys after training; they are not made unit again, and the decay shrinks them."""
        keys = start.clone().requires_grad_()
        optimizer = torch.optim.AdamW([keys], lr=self.lr, eps=1e-4, weight_decay=0.01)
        onehot = F.one_hot(labels, len(self.text)).float()
        rng = torch.Generator().manual_seed(self.seed)
        steps = self.epochs * math.ceil(len(labels) / self.batch)
        step = 0
        for epoch in range(self.epochs):
            pictures = views[epoch % len(views)]
            for chosen in torch.randperm(len(labels), generator=rng).split(self.batch):
                for group in optimizer.param_groups:
                    group["lr"] = self.lr / 2 * (1 + math.cos(math.pi * step / steps))
                f = pictures[chosen]
                near = torch.exp(-beta * (1 - f @ keys.T))
                logits = self.scale * f @ self.text.T + alpha * (near @ onehot)
                loss = F.cross_entropy(logits, labels[chosen])
                (keys.grad,) = torch.autograd.grad(loss, keys)
                optimizer.step()
                step += 1
        return keys.detach()


@dataclass(eq=False)
class GDA(_Fit):
    """Gaussian discriminant analysis: logits = scale f . t + alpha (f W + b), in closed form.

    With mu_k the class means and S the covariance of the n shots around them,
    P = E pinv((n - 1) S + tr(S) I), W = P mu^T, b_k = -log K - mu_k P mu_k / 2. Augmented passes
    count as further shots, so many passes of the same pictures weaken the ridge.
    """

    alpha: float | None = None  # weight of the Gaussians; None: by validation pictures, else 1
    scale: float = 100.0  # exp(logit_scale) of the model

    def fit(self, features: Tensor, labels: Tensor, val: Pictures | None = None) -> Head:
        """Fit on unit features (n, E), labels (n,); arguments and errors as `TipAdapter.fit`."""
        each = self._check(features, labels)
        count, width = self.text.shape
        means = torch.zeros(count, width).index_add(0, labels, features) / each.unsqueeze(1)
        residuals = features - means[labels]
        scatter = residuals.T @ residuals  # (n - 1) S
        total = scatter.trace() / max(1, len(labels) - 1)
        if not bool(total > 0):  # one picture a class: no spread to learn, so none is preferred
            total = scatter.new_tensor(1.0)
        ridge = scatter + total * torch.eye(width)
        precision = width * torch.cholesky_inverse(torch.linalg.cholesky(ridge))
        weight = means @ precision  # (K, E)
        bias = -math.log(count) - (weight * means).sum(-1) / 2

        def make(alpha: float) -> Head:
            return Head("gda", self.text, self.scale * self.text + alpha * weight, alpha * bias)

        if self.alpha is not None or val is None or not len(val[1]):
            return make(1.0 if self.alpha is None else self.alpha)
        return max(map(make, GDA_ALPHAS), key=lambda one: accuracy(one, val))


@dataclass(eq=False)
class LPPlusPlus(_Fit):
    """A linear probe and a learned weight of the text: logits_k = f . w_k + b_k + alpha_k f . t_k.

    Full-batch gradient descent with the rates that the objective's curvature allows: W, from the
    sums of the classes' shots, and b, from zero, by SGD with momentum 0.9; alpha, from 250 times
    the mean fit of shots and text, every tenth epoch by the sum of all its gradients so far, which
    the public program never clears.
    """

    epochs: int = 300

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor, val: Pictures | None = None) -> Head:
        """Fit on unit features (n, E), labels (n,); with `val` the best epoch, the last of equals.

        Raises:
            MethodError: as `TipAdapter.fit`.
        """
        each = self._check(features, labels)
        count, shots = len(self.text), len(labels)
        fits = features @ self.text.T  # (n, K)
        own = fits[torch.arange(shots), labels]
        class_means = torch.zeros(count).index_add(0, labels, own) / each
        alpha = (250 * class_means.mean()).expand(count).clone()
        weight = torch.zeros_like(self.text).index_add(0, labels, features)
        bias = torch.zeros(count)
        onehot = F.one_hot(labels, count).float()
        rate = 4 * shots / float(torch.linalg.eigvalsh(features.T @ features)[-1])
        alpha_rate = shots / (4 * float(fits.square().sum(0).max()))
        speed_w, speed_b, pull = torch.zeros_like(weight), torch.zeros_like(bias), alpha * 0
        best, most = None, -1.0
        for epoch in range(1, self.epochs + 1):
            logits = features @ weight.T + bias + alpha * fits
            slope = (logits.softmax(-1) - onehot) / shots  # of the mean cross-entropy, (n, K)
            pull += (slope * fits).sum(0)
            speed_w = 0.9 * speed_w + slope.T @ features
            speed_b = 0.9 * speed_b + slope.sum(0)
            weight, bias = weight - rate * speed_w, bias - rate * speed_b
            if epoch % 10 == 0:
                alpha = alpha - alpha_rate * pull
            if val is not None and len(val[1]):
                head = self._make(weight, bias, alpha)
                right = accuracy(head, val)
                if right >= most:
                    best, most = head, right
        return best or self._make(weight, bias, alpha)

    def _make(self, weight: Tensor, bias: Tensor, alpha: Tensor) -> Head:
        return Head("lpp", self.text, weight + alpha.unsqueeze(1) * self.text, bias)
